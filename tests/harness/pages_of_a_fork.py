"""x"""

import json
import os
import select
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from supervisor.guests.pagewalker import PAGE_SIZE
from supervisor.uffd import kernel


class PageServer:
    """Serves one guest's memory from a mem-file in a thread of its own, until the context is left.

    `removed` are the pages that a balloon has taken, as addresses in the guest, by the kernel's messages. A page server
    that `forgets` them answers from the mem-file nevertheless.
    """

    def __init__(self, path: Path, mem_file: Path, *, forgets: bool = False) -> None:
        self.path = path
        self.removed: set[int] = set()
        self._forgets = forgets
        self._size = mem_file.stat().st_size
        with mem_file.open("rb") as file:
            self._image = kernel.map_read_only(file.fileno(), self._size)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._listener.close()
        kernel.unmap(self._image, self._size)

    def _serve(self) -> None:
        if not self._is_ready(self._listener.fileno()):
            return
        connection, _ = self._listener.accept()
        with connection:
            message, (uffd,), _, _ = socket.recv_fds(connection, 65536, 1)
            (mapping,) = json.loads(message)
            try:
                while self._is_ready(uffd):
                    self._obey(uffd, mapping["base_host_virt_addr"])
            finally:
                os.close(uffd)

    def _is_ready(self, fd: int) -> bool:
        """Return when there is something to read, or False when the context is left."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        return self._stopped.fileno() not in dict(poll.poll())

    def _obey(self, uffd: int, base: int) -> None:
        try:
            message = os.read(uffd, kernel.MESSAGE_BYTES)
        except BlockingIOError:
            return  # a thread that was woken, or killed, takes its fault back
        for event, first, second, _ in kernel.messages(message):
            if event == kernel.UFFD_EVENT_REMOVE:
                self.removed.update(range(first - base, second - base, PAGE_SIZE))
            else:
                self._fill(uffd, base, (second - base) // PAGE_SIZE * PAGE_SIZE)

    def _fill(self, uffd: int, base: int, page: int) -> None:
        try:
            if page in self.removed and not self._forgets:
                kernel.zeropage(uffd, base + page, PAGE_SIZE)
            else:
                kernel.copy(uffd, base + page, self._image + page, PAGE_SIZE)
        except (BlockingIOError, FileExistsError):
            # EAGAIN: pages are being removed, and nothing is filled before that message has been read. EEXIST: another
            # thread's fault was answered. Woken, the thread faults again or finds the page.
            kernel.wake(uffd, base + page, PAGE_SIZE)
