"""What runs in the nested host, in one process: the standard library only, for its CPU is emulated."""
