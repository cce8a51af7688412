"""A module for each job; `run` is given the host, and notes down what it sees there."""
