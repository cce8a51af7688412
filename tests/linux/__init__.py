"""Real Linux guests under real Firecracker, on a host that QEMU emulates."""
