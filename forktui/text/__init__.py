"""Words and numbers for a terminal. Pure."""
