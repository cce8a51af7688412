"""The program: its command line, its directories and its start."""
