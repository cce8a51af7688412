"""The host's pool of huge pages, as a test needs it."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.errors import PageServerError
from supervisor.uffd.huge_pages import free_pages

POOL = Path("/proc/sys/vm/nr_hugepages")


def set_free(pages: int) -> None:
    """Have the pool so many pages to promise; skip where it cannot be had."""
    try:
        POOL.write_text(str(int(POOL.read_text()) + pages - free_pages()))
        found = free_pages()
    except (OSError, PageServerError) as error:
        pytest.skip(f"huge pages: the pool cannot be changed: {error}")
    if found != pages:
        pytest.skip(f"huge pages: the host has {found} of 2 MiB to give and {pages} are needed")


@contextlib.contextmanager
def free_in_pool(pages: int) -> Iterator[None]:
    """Have the pool so many pages to promise, and what it was before afterwards; one test has it at a time."""
    if not POOL.exists():
        pytest.skip("huge pages: the kernel has none")
    with POOL.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = held.read()
        try:
            set_free(pages)
            yield
        finally:
            if POOL.read_text() != before:
                POOL.write_text(before)
