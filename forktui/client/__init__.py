"""How the client reaches a supervisor, and the one that it starts itself."""
