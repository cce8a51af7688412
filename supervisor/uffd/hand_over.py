"""What the supervisor hands to a page server with a fork: what that may not open itself, or need not.

A page server of its own user reaches neither the VMM's /proc nor the run directory.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from supervisor.errors import PageServerError
from supervisor.system.regular_files import open_regular
from supervisor.uffd.map_files import NewMapFile, lock_of, new_map_file
from supervisor.uffd.takeover import take_userfaultfd

Given = dict[str, int]
"""Descriptors by name, in the order in which they are sent."""


@contextlib.contextmanager
def new_fork(fork_id: str, listener: socket.socket, page_map: Path, vmm_pid: int) -> Iterator[tuple[Given, NewMapFile]]:
    """Give what is handed over with a new fork, and the file that is to be its page map.

    PageServerError where its VMM is gone, or the file cannot be made.
    """
    with contextlib.ExitStack() as opened:
        vmm = _opened_vmm(fork_id, vmm_pid)
        opened.callback(os.close, vmm)
        try:
            new_map = opened.enter_context(new_map_file(page_map))
            lock = opened.enter_context(lock_of(page_map.parent))
        except OSError as error:
            raise PageServerError(f"page map {page_map} cannot be made: {error.strerror}") from error
        yield {"listener": listener.fileno(), "vmm": vmm, "new_map": new_map.descriptor, "lock": lock}, new_map


class LeftOver:
    """What is handed over with a fork that another page server has served; a context, which closes it."""

    def __init__(self, fork_id: str, page_map: Path, vmm_pid: int) -> None:
        self.given: Given = {}
        self._fork_id = fork_id
        self._page_map = page_map
        self._vmm_pid = vmm_pid
        self._new_map: NewMapFile | None = None
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def open(self) -> None:
        """Take the userfaultfd out of the VMM, and open the rest. Blocks.

        PageServerError when the VMM has gone, or may not be asked, or there is no room for a page map.
        """
        # First: a page server of an earlier version is handed this alone.
        self._add("uffd", take_userfaultfd(self._vmm_pid))
        self._add("vmm", _opened_vmm(self._fork_id, self._vmm_pid))
        try:
            for name in ("pagemap", "smaps"):
                self._add(name, os.open(f"/proc/{self._vmm_pid}/{name}", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            reason = f"the memory of pid {self._vmm_pid} cannot be looked at: {error.strerror}"
            raise PageServerError(f"fork {self._fork_id}: {reason}") from error
        try:
            self._new_map = self._opened.enter_context(new_map_file(self._page_map))
            self.given["new_map"] = self._new_map.descriptor
            self.given["lock"] = self._opened.enter_context(lock_of(self._page_map.parent))
        except OSError as error:
            raise PageServerError(f"page map {self._page_map} cannot be made: {error.strerror}") from error
        with contextlib.suppress(OSError):
            self._add("left_map", open_regular(self._page_map, os.O_RDWR))

    def _add(self, name: str, descriptor: int) -> None:
        self._opened.callback(os.close, descriptor)
        self.given[name] = descriptor

    def place_new_map(self) -> None:
        """Have the new page map in the place of the one that was left; raises PageServerError."""
        if self._new_map is not None:
            self._new_map.place()


def _opened_vmm(fork_id: str, vmm_pid: int) -> int:
    try:
        return os.pidfd_open(vmm_pid)
    except OSError as error:
        raise PageServerError(f"fork {fork_id}: no VMM has pid {vmm_pid}: {error.strerror}") from error
