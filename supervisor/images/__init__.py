"""What an instance is made of: kernels and disks, or a snapshot, in `images/`."""
