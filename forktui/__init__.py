"""The client: a terminal dashboard and a command line for the supervisor."""
