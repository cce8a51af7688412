"""How many descriptors a process may have open, and how many it has; standard library only."""

import os
import resource


def raise_limit() -> None:
    """Raise the soft limit to the hard one: each fork takes some, in the supervisor and in its page server.

    The soft limit is low for programs that use select(2); nothing here does with many descriptors.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_of(pid: int) -> int | None:
    """Return how many a process may have, None for any number; raises OSError."""
    soft = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def opened_by(pid: int) -> int:
    """Return how many a process has; raises OSError."""
    directory = f"/proc/{pid}/fd"
    # The directory's size is their number since Linux 6.2 (proc_fd_getattr in fs/proc/fd.c), and to ask takes none.
    return os.stat(directory).st_size or len(os.listdir(directory))  # noqa: PTH116, PTH208 - a count of names
