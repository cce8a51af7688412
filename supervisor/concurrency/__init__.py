"""Tasks beside others, and how far an operation is."""
