"""The host as the client knows it. Pure."""
