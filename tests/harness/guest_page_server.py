"""A small page server in a thread of the test, which can withhold pages and forget what was given back."""

import json
import os
import select
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.guests.pagewalker import PAGE_SIZE
from supervisor.uffd import kernel
from tests.harness.unix_http import TIMEOUT


class PageServer:
    """Sends the pages of a mem-file to one VMM, a page a fault; those in `withheld` only after `release`.

    One that is `forgetful` sends the mem-file's page also where the guest has given it back.
    """

    def __init__(self, path: Path, mem_file: Path, withheld: Collection[int] = (), forgetful: bool = False) -> None:
        self.path = path
        self.message: list[dict[str, int]] = []
        self.faults: list[int] = []
        self.removed: list[tuple[int, int]] = []
        self._removed_pages: set[int] = set()
        self._reading = True
        self._unread = threading.Event()
        self._forgetful = forgetful
        self._withheld = frozenset(withheld)
        self._waiting: list[int] = []
        self._changed = threading.Condition()
        self._commands, self._commander = os.pipe()
        self._size = mem_file.stat().st_size
        with mem_file.open("rb") as file:
            self._source = kernel.map_read_only(file.fileno(), self._size)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def until_fault(self, address: int) -> None:
        """Return when the page at the guest-physical `address` has been asked for."""
        with self._changed:
            assert self._changed.wait_for(lambda: address in self.faults, TIMEOUT), f"{len(self.faults)} faults"

    def until_removed(self, count: int) -> list[tuple[int, int]]:
        """The first `count` ranges that were given back, once they have been taken note of."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.removed) >= count, TIMEOUT), self.removed
            return self.removed[:count]

    def until_taken(self, pages: set[int]) -> None:
        """Return once just these pages have been given back, by their guest-physical addresses."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._removed_pages == pages, TIMEOUT), self.removed

    def stop_reading(self) -> None:
        """Take note of nothing that happens from now on, until `release`."""
        self._unread.clear()
        os.write(self._commander, b"s")

    def until_unread(self) -> None:
        """Return when there is something to read since `stop_reading`."""
        assert self._unread.wait(TIMEOUT)

    def release(self) -> None:
        """Read again, send what was withheld, and withhold no more."""
        os.write(self._commander, b"r")

    def close(self) -> None:
        """Stop serving."""
        os.write(self._commander, b"q")
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._listener.close()
        os.close(self._commands)
        os.close(self._commander)
        kernel.unmap(self._source, self._size)

    def _run(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            # Closed before a VMM came.
            return
        with peer:
            message, [uffd], _, _ = socket.recv_fds(peer, 65536, 1)
            self.message = json.loads(message)
            try:
                self._serve(uffd)
            finally:
                os.close(uffd)

    def _serve(self, uffd: int) -> None:
        poll = select.poll()
        poll.register(uffd, select.POLLIN)
        poll.register(self._commands, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._commands in ready:
                command = os.read(self._commands, 1)
                if command == b"q":
                    return
                self._reading = command == b"r"
                if self._reading:
                    poll.register(uffd, select.POLLIN)
                    self._withheld = frozenset()
                    for address in self._waiting:
                        self._copy(uffd, address)
            elif self._reading and ready[uffd] & select.POLLIN:
                self._read(uffd)
            else:
                poll.unregister(uffd)
                self._unread.set()

    def _read(self, uffd: int) -> None:
        base = self.message[0]["base_host_virt_addr"]
        try:
            messages = os.read(uffd, 64 * kernel.MESSAGE_BYTES)
        except BlockingIOError:
            # A thread that was woken, or killed, takes its fault back.
            return
        for event, first, second, _ in kernel.messages(messages):
            if event == kernel.UFFD_EVENT_REMOVE:
                start, end = first - base, second - base
                with self._changed:
                    self._removed_pages.update(range(start, end, PAGE_SIZE))
                    self.removed.append((start, end))
                    self._changed.notify_all()
            else:
                assert event == kernel.UFFD_EVENT_PAGEFAULT
                self._answer(uffd, (second & -PAGE_SIZE) - base)

    def _answer(self, uffd: int, address: int) -> None:
        with self._changed:
            self.faults.append(address)
            self._changed.notify_all()
        if address in self._withheld:
            self._waiting.append(address)
        else:
            self._copy(uffd, address)

    def _copy(self, uffd: int, address: int) -> None:
        base = self.message[0]["base_host_virt_addr"]
        try:
            if address in self._removed_pages and not self._forgetful:
                kernel.zeropage(uffd, base + address, PAGE_SIZE)
            else:
                kernel.copy(uffd, base + address, self._source + address, PAGE_SIZE)
        except (BlockingIOError, FileExistsError):
            # EAGAIN: pages are being removed, and nothing is filled before that message has been read. EEXIST: two
            # threads wanted the page. Woken, a thread faults again or finds the page.
            kernel.wake(uffd, base + address, PAGE_SIZE)
        except (ProcessLookupError, FileNotFoundError):
            # The VMM has gone.
            return


@contextmanager
def page_server(
    path: Path, mem_file: Path, withheld: Collection[int] = (), forgetful: bool = False
) -> Iterator[PageServer]:
    """A page server that ends with the context."""
    server = PageServer(path, mem_file, withheld, forgetful)
    try:
        yield server
    finally:
        server.close()
