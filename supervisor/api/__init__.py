"""The HTTP API over the Unix socket: hypeman's paths and shapes, and ours beyond them."""
