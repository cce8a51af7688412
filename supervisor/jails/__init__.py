"""Jails: what a VMM has as its root, whose it is there, and what of it comes back."""
