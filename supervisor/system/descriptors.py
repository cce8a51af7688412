"""How many descriptors a process may have open; standard library only."""

import resource


def raise_limit() -> None:
    """Raise the soft limit to the hard one: each fork takes some, in the supervisor and in its page server.

    The soft limit is low for programs that use select(2); nothing here does with many descriptors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
