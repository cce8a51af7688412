"""Guests that wait too long for a page are found from outside."""

import ctypes
import mmap
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.stalls import Stall, age, observe
from supervisor.uffd import kernel
from supervisor.usage import waits_for_page


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ([(True, 0, 10.0), (True, 0, 11.5)], 1.5),
        ([(True, 0, 10.0), (True, 1, 11.5)], 0.0),
        ([(True, 0, 10.0), (False, 1, 11.5)], 0.0),
        ([(False, 0, 10.0), (True, 0, 11.0), (True, 0, 12.0)], 1.0),
        ([(True, 0, 10.0), (False, 0, 11.0), (True, 0, 12.0)], 0.0),
    ],
)
def test_a_wait_counts_from_the_look_since_which_nothing_was_answered(
    looks: list[tuple[bool, int, float]], seconds: float
) -> None:
    stall = Stall()
    for waits, answered, now in looks:
        stall = observe(stall, waits, answered, now)
    assert age(stall, looks[-1][2]) == seconds


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1))
def test_a_guest_that_does_not_wait_is_never_stalled(looks: list[tuple[bool, int]]) -> None:
    stall = Stall()
    for moment, (waits, answered) in enumerate(looks):
        stall = observe(stall, waits, answered, float(moment))
        if not waits:
            assert age(stall, float(moment)) == 0.0


def test_a_thread_in_a_fault_that_nobody_answers_is_seen() -> None:
    memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.UFFD_USER_MODE_ONLY)
    try:
        kernel.api(uffd, 0)
        kernel.register(uffd, address, 4096)
        assert not waits_for_page(os.getpid())
        # A function of libc, called without the GIL, so that the fault stops its own thread only.
        arguments = (ctypes.c_void_p(address), b"\0", ctypes.c_size_t(1))
        toucher = threading.Thread(target=ctypes.CDLL(None).memcmp, args=arguments)
        toucher.start()
        os.read(uffd, kernel.MESSAGE_BYTES)
        # The message can be read a moment before the thread is asleep.
        deadline = time.monotonic() + 10
        while not waits_for_page(os.getpid()) and time.monotonic() < deadline:
            os.sched_yield()
        assert waits_for_page(os.getpid())
        kernel.zeropage(uffd, address, 4096)
        toucher.join()
        assert not waits_for_page(os.getpid())
    finally:
        os.close(uffd)
