"""The dashboard: the only rooms with Textual."""
