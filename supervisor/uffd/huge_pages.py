"""The host's pool of huge pages: a fork that it cannot provide for is refused, rather than stopped in mid-run."""

import errno
from pathlib import Path

from supervisor.errors import PageServerError

HUGE_PAGE_BYTES = 2 << 20

_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def free_pages() -> int:
    """How many pages of 2 MiB the pool can promise: those free and not reserved by a mapping, and what it may grow by.

    The numbers are those of Documentation/admin-guide/mm/hugetlbpage.rst. PageServerError on a kernel without them.
    """
    try:
        growth = _number("nr_overcommit_hugepages") - _number("surplus_hugepages")
        return max(_unreserved(), 0) + max(growth, 0)
    except OSError as error:
        raise PageServerError(f"the host has no pool of huge pages: {error}") from error


def check_pool(fork_id: str, needed: int, promised: int) -> None:
    """PageServerError that says how many pages the pool lacks to give a fork all that its guest may touch.

    Firecracker reserves nothing when it maps guest memory (MAP_NORESERVE, src/vmm/src/vstate/memory.rs), so that what
    other forks may still take, `promised`, is free by the kernel's count. Those of other page servers are not in it.
    """
    missing = needed + promised - free_pages()
    if missing > 0:
        raise PageServerError(
            f"fork {fork_id} is refused: it needs {needed} huge pages of 2 MiB, {promised} are promised to other forks,"
            f" and the pool is {missing} short; add {missing} to /proc/sys/vm/nr_hugepages or delete other forks"
        )


def check_not_empty() -> None:
    """OSError (ENOSPC) when the pool has no page left that is not reserved."""
    if _unreserved() <= 0:
        raise OSError(errno.ENOSPC, "the host's pool has no huge page left")


def _unreserved() -> int:
    return _number("free_hugepages") - _number("resv_hugepages")


def _number(name: str) -> int:
    return int((_POOL / name).read_text())
