"""The guests that ship with the supervisor."""
