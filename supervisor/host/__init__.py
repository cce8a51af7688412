"""The one object that the API speaks to, the bus of its events, and what it can do."""
