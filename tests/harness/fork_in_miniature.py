"""A fork in miniature for the page server's tests: a process with real memory behind a real userfaultfd.

Run as a program it is that process, and obeys the lines on its stdin; `Fork` is the test's end of it.
"""

import asyncio
import contextlib
import ctypes
import json
import mmap
import os
import random
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from supervisor.uffd import kernel
from tests.harness.checkout import ROOT

TIMEOUT = 20.0
"""Seconds until an answer that does not come fails a test."""

_MADV_DONTNEED = 4
_MAP_NORESERVE = 0x4000
"""As Firecracker maps its guests' memory: huge pages are taken from the pool when they are touched."""
_MAP_HUGETLB = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Guest:
    """The memory, in regions that lie apart, and what it should hold.

    It is touched by libc alone: ctypes lets go of the GIL there, so that a thread in a fault stops no other one, and
    the access is one of user mode.
    """

    def __init__(self, listen: str, expected: str, page_size: int, regions: list[int], user_mode_only: bool) -> None:
        self._listen = listen
        self._page_size = page_size
        flags = kernel.O_CLOEXEC | kernel.O_NONBLOCK
        try:
            self.uffd = kernel.userfaultfd(flags | (kernel.UFFD_USER_MODE_ONLY if user_mode_only else 0))
        except PermissionError:
            self.uffd = kernel.userfaultfd(flags | kernel.UFFD_USER_MODE_ONLY)
        kernel.api(self.uffd, kernel.UFFD_FEATURE_EVENT_REMOVE)
        self._memory: list[mmap.mmap] = []
        self._addresses: list[int] = []
        self.mappings: list[dict[str, int]] = []
        for size in regions:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | (0 if page_size == 4096 else _MAP_HUGETLB)
            region = mmap.mmap(-1, size, flags)
            self._memory.append(region)
            base = ctypes.addressof(ctypes.c_char.from_buffer(region))
            kernel.register(self.uffd, base, size)
            offset = len(self._addresses) * page_size
            self.mappings.append(
                {"base_host_virt_addr": base, "size": size, "offset": offset, "page_size": page_size}
                | {"page_size_kib": page_size}
            )
            self._addresses += range(base, base + size, page_size)
        with Path(expected).open("rb") as file:
            self._expected = kernel.map_read_only(file.fileno(), len(self._addresses) * page_size)
        self._zeros = ctypes.create_string_buffer(page_size)
        self._connections: list[socket.socket] = []

    def load(self) -> str:
        """Firecracker's handshake."""
        return self.send(json.dumps(self.mappings), "uffd")

    def send(self, message: str, *descriptors: str) -> str:
        """A handshake with this message and these descriptors; the connection stays open."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._listen)
        self._connections.append(connection)
        opened = [self._descriptor(kind) for kind in descriptors]
        if opened:
            socket.send_fds(connection, [message.encode()], opened)
        else:
            connection.sendall(message.encode())
        return "sent"

    def _descriptor(self, kind: str) -> int:
        """Its own userfaultfd, one that was never told UFFDIO_API, or a file."""
        match kind:
            case "uffd":
                return self.uffd
            case "bare uffd":
                return kernel.userfaultfd(kernel.O_CLOEXEC | kernel.O_NONBLOCK | kernel.UFFD_USER_MODE_ONLY)
        return os.open(kind, os.O_RDONLY)

    def block(self) -> str:
        """Have reads of the userfaultfd wait, by whatever duplicate: O_NONBLOCK is of the open file description."""
        os.set_blocking(self.uffd, True)
        return "blocking"

    def hang_up(self) -> str:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        return "closed"

    def walk(self, start: str, end: str) -> str:
        """Verify pages [start, end) in their order; answers how many are wrong."""
        return str(sum(map(self._is_wrong, range(int(start), int(end)))))

    def storm(self, threads: str, seed: str) -> str:
        """Verify all pages in a random order, in several threads at once; answers how many are wrong."""
        wrong: list[int] = []

        def run(number: int) -> None:
            order = list(range(len(self._addresses)))
            random.Random(f"{seed} {number}").shuffle(order)
            wrong.append(sum(map(self._is_wrong, order)))

        running = [threading.Thread(target=run, args=(number,)) for number in range(int(threads))]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return str(sum(wrong))

    def churn(self, start: str, end: str, rounds: str) -> str:
        """Give back pages [start, end) and find them zero, again and again, while the others are verified."""
        first, last = int(start), int(end)
        wrong: list[int] = []
        rest = [page for page in range(len(self._addresses)) if not first <= page < last]
        walker = threading.Thread(target=lambda: wrong.append(sum(map(self._is_wrong, rest))))
        walker.start()
        for _ in range(int(rounds)):
            self.remove(start, end)
            wrong.append(int(self.zeros(start, end)))
        walker.join()
        return str(sum(wrong))

    def zeros(self, start: str, end: str) -> str:
        """Verify that pages [start, end) are zero; answers how many are not."""
        pages = self._addresses[int(start) : int(end)]
        return str(sum(_libc.memcmp(address, self._zeros, self._page_size) != 0 for address in pages))

    def remove(self, start: str, end: str) -> str:
        """Give back pages [start, end) of one region, as a balloon does."""
        length = (int(end) - int(start)) * self._page_size
        if _libc.madvise(self._addresses[int(start)], length, _MADV_DONTNEED) != 0:
            raise OSError(ctypes.get_errno(), "madvise")
        return "removed"

    def write(self, start: str, end: str) -> str:
        """Write to every page of [start, end), which are the expected ones no more."""
        for address in self._addresses[int(start) : int(end)]:
            _libc.memset(address, 0xA5, self._page_size)
        return "written"

    def _is_wrong(self, page: int) -> bool:
        expected = self._expected + page * self._page_size
        return int(_libc.memcmp(self._addresses[page], expected, self._page_size)) != 0


def main() -> None:
    """Obey one line after the other: a method of `Guest` and its arguments as a JSON array; answer with a line each."""
    guest = Guest(**json.loads(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(getattr(guest, name)(*arguments), flush=True)


class Fork:
    """The test's end of the process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        listen: Path,
        expected: Path,
        regions: list[int],
        *,
        page_size: int = 4096,
        user_mode_only: bool = False,
    ) -> "Fork":
        """Start one whose memory is to hold the bytes of `expected`; it has not connected yet."""
        arguments = {
            "listen": str(listen),
            "expected": str(expected),
            "page_size": page_size,
            "regions": regions,
            "user_mode_only": user_mode_only,
        }
        fork = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.harness.fork_in_miniature", json.dumps(arguments)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        await fork.answer("ready")
        return fork

    def tell(self, name: str, *arguments: Any) -> None:
        """Have it do something; `answer` waits for that."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([name, *map(str, arguments)]).encode() + b"\n")

    async def answer(self, expected: str | None = None) -> str:
        """Wait for an answer, and check it."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), TIMEOUT)
        said = line.decode().strip()
        if expected is not None:
            assert said == expected
        return said

    async def do(self, name: str, *arguments: Any, expect: str = "0") -> None:
        """Have it do something, and wait until it has been done as expected."""
        self.tell(name, *arguments)
        await self.answer(expect)

    async def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


if __name__ == "__main__":
    main()
