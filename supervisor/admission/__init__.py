"""Whether what is asked for fits on the host."""
