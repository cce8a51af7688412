"""What a pager counts on of the kernel's userfaultfd: taken out of a process, and never a read that waits."""

import os
import random
import threading
from pathlib import Path

import pytest

from supervisor.uffd import kernel
from tests.harness.pager_bench import MADV_DONTNEED, PAGE, TIMEOUT, Bench, join, libc

pytestmark = pytest.mark.usefixtures("userfaultfd")


def test_the_handshake_with_the_kernel_is_done_once(bench: Bench) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        kernel.api(bench.uffd, 0)


def test_a_userfaultfd_can_be_taken_out_of_a_process(bench: Bench) -> None:
    pidfd = os.pidfd_open(os.getpid())
    taken = kernel.pidfd_getfd(pidfd, bench.uffd)
    assert Path(f"/proc/self/fd/{taken}").readlink() == Path("anon_inode:[userfaultfd]")
    os.close(taken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.pidfd_getfd(pidfd, 1 << 20)
    os.close(pidfd)


@pytest.mark.parametrize("unsupported", [0, 1 << 30], ids=["RWF_NOWAIT", "before Linux 6.10"])
def test_no_read_waits_when_the_other_side_makes_the_userfaultfd_blocking(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unsupported: int
) -> None:
    # A flag that no kernel knows is refused as RWF_NOWAIT is where reads of a userfaultfd do not take it.
    monkeypatch.setattr(kernel, "_NO_WAIT", kernel._NO_WAIT | unsupported)
    bench.pager = bench.new_pager()
    thread, found = bench.touch(10)
    bench.wait_for_message()
    assert bench.pager.serve() == [10]
    join(thread)
    assert found.raw == bench.page(10)
    assert bench.pager.serve() == []
    os.set_blocking(bench.uffd, True)
    refused: list[OSError] = []

    def serve() -> None:
        try:
            bench.pager.serve()
        except OSError as error:
            refused.append(error)

    reader = threading.Thread(target=serve, daemon=True)
    reader.start()
    join(reader)
    assert [error.strerror for error in refused] == ["its VMM has made it blocking"]


def test_a_fault_that_is_raised_while_its_range_is_unregistered_does_not_wait_for_ever() -> None:
    """Some of so many tries meet the moment at which the kernel has woken all that wait, and lets one more in."""
    ahead = 1 << 20
    here, there = (kernel.anonymous_memory(ahead + PAGE) for _ in range(2))
    for _, base in (here, there):
        libc.memset(base, 0, ahead + PAGE)
    last = here[1] + ahead
    uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.O_NONBLOCK | kernel.UFFD_USER_MODE_ONLY)
    try:
        kernel.api(uffd, 0)
        for attempt in range(2000):
            libc.madvise(last, PAGE, MADV_DONTNEED)
            kernel.register(uffd, last, PAGE)
            # Comes to the page that is not there after a time that is another each time.
            before = random.Random(attempt).randrange(ahead)
            toucher = threading.Thread(target=libc.memcmp, args=(last - before, there[1] + ahead - before, before + 1))
            toucher.start()
            kernel.unregister(uffd, last, PAGE)
            toucher.join(TIMEOUT)
            assert not toucher.is_alive(), attempt
    finally:
        os.close(uffd)
