"""What is drawn, as values. Pure."""
