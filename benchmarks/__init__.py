"""Measures what forktui promises, against what it is compared with, in one run."""
