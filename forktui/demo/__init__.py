"""The demo: a fan-out on a host of its own, in the dashboard or as a report."""
