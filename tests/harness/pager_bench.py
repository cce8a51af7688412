"""A pager with memory of the test's own process behind a real userfaultfd."""

import ctypes
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from supervisor.uffd import kernel
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.memory_image import MemoryImage
from supervisor.uffd.pager import Pager
from tests.harness.page_maps import page_map_at

PAGE = 4096
PAGES = 32
SIZE = PAGES * PAGE
TIMEOUT = 20.0
MADV_DONTNEED = 4
libc = ctypes.CDLL(None)
libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)


class Bench:
    """Memory under a userfaultfd, the image that it is to hold, and a pager between them."""

    def __init__(self, folder: Path) -> None:
        self.content = os.urandom(SIZE)
        self.path = folder / "mem"
        self.path.write_bytes(self.content)
        self.image = MemoryImage([self.path], SIZE)
        self.map = page_map_at(folder / "map", PAGE, PAGES)
        self.memory, self.base = kernel.anonymous_memory(SIZE)
        self.uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.O_NONBLOCK | kernel.UFFD_USER_MODE_ONLY)
        kernel.api(self.uffd, kernel.UFFD_FEATURE_EVENT_REMOVE)
        kernel.register(self.uffd, self.base, SIZE)
        self.pager = self.new_pager()
        self.threads: list[threading.Thread] = []

    def new_pager(self, *, around: int = 8, adaptive: bool = False) -> Pager:
        """A pager for all of the memory."""
        made = Pager(self.uffd, [Mapping(self.base, SIZE, 0)], self.image, self.map, PAGE)
        made.fault_around(around, adaptive=adaptive)
        return made

    def touch(self, page: int) -> tuple[threading.Thread, ctypes.Array[ctypes.c_char]]:
        """Read a page in a thread, which waits for its fault to be answered."""
        found = ctypes.create_string_buffer(PAGE)
        return self._run(lambda: libc.memmove(found, self.base + page * PAGE, PAGE)), found

    def remove(self, start: int, end: int) -> threading.Thread:
        """Give back pages in a thread, which waits for its event to be read."""
        return self._run(lambda: libc.madvise(self.base + start * PAGE, (end - start) * PAGE, MADV_DONTNEED))

    def wait_for_message(self) -> None:
        """Wait until the userfaultfd can be read."""
        readable, _, _ = select.select([self.uffd], [], [], TIMEOUT)
        assert readable

    def page(self, page: int) -> bytes:
        """What a page should hold."""
        return self.content[page * PAGE : (page + 1) * PAGE]

    def counter(self, index: int) -> int:
        """One of the counters."""
        return self.map.counters[index]

    def _run(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def close(self) -> None:
        """Let everybody go: a thread that still waits sees zeros."""
        kernel.unregister(self.uffd, self.base, SIZE)
        os.close(self.uffd)
        for thread in self.threads:
            thread.join(TIMEOUT)
        self.map.close()
        self.image.close()


def join(*threads: threading.Thread) -> None:
    """Wait for threads that nothing holds any more."""
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def wait_until_held(thread: threading.Thread, call: str) -> None:
    """Wait until a thread sleeps in this system call (/proc/pid/task/tid/syscall; -1 is none, a page fault)."""
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    deadline = time.monotonic() + TIMEOUT
    while path.read_text().split()[0] != call:
        assert time.monotonic() < deadline
        os.sched_yield()
