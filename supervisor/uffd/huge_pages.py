"""The host's pool of huge pages, as the kernel counts it."""

import errno
from pathlib import Path

from supervisor.errors import PageServerError

SMALL_PAGE_BYTES = 4096
HUGE_PAGE_BYTES = 2 << 20

POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


def free_pages() -> int:
    """How many pages of 2 MiB the pool can promise: those free and not reserved by a mapping, and what it may grow by.

    The numbers are those of Documentation/admin-guide/mm/hugetlbpage.rst. PageServerError on a kernel without them.
    """
    try:
        growth = _number("nr_overcommit_hugepages") - _number("surplus_hugepages")
        return max(_unreserved(), 0) + max(growth, 0)
    except OSError as error:
        raise PageServerError(f"the host has no pool of huge pages: {error}") from error


def check_not_empty() -> None:
    """OSError (ENOSPC) when the pool has no page left that is not reserved."""
    if _unreserved() <= 0:
        raise OSError(errno.ENOSPC, "the host's pool has no huge page left")


def _unreserved() -> int:
    return _number("free_hugepages") - _number("resv_hugepages")


def _number(name: str) -> int:
    return int((POOL / name).read_text())
