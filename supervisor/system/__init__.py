"""What is asked of the operating system without knowing of VMs."""
