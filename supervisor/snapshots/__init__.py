"""Memory images as chains of layers, and their files."""
