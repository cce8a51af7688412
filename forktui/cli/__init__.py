"""The command line: the commands, and the dashboard where none is given."""
