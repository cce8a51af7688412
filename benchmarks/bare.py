"""The least that makes a fork, by the standard library alone: spawn, handshake, load. No record, no cleaning up after.

It blocks: each fork is made in a thread. One page server thread a fork answers its faults one page at a time.
"""

import contextlib
import ctypes
import fcntl
import http.client
import json
import mmap
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

UFFDIO_COPY: Final = 0xC028AA03
PAGE_SIZE: Final = 4096
RETRY_SECONDS: Final = 0.0005
"""Between looks at a socket that does not listen yet: nothing tells when it does."""
_COPY: Final = struct.Struct("=QQQQq")
_MESSAGE_BYTES: Final = 32
_ADDRESS: Final = struct.Struct("=16xQ8x")


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class BareFork:
    """One fork; when it is made, its guest runs."""

    def __init__(self, command: Sequence[str], directory: Path, state: Path, memory: Path) -> None:
        began = time.perf_counter()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{directory}/uffd.sock")
        self._listener.listen(1)
        self._serving = threading.Thread(target=self._serve, args=(memory,))
        self._serving.start()
        api = f"{directory}/api.sock"
        self._pid = os.posix_spawn(
            command[0],
            [*command, "--api-sock", api, "--id", directory.name],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, f"{directory}/console.log", os.O_WRONLY | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, f"{directory}/stderr", os.O_WRONLY | os.O_CREAT, 0o600),
            ],
            setsid=True,
        )
        self._pidfd = os.pidfd_open(self._pid)
        try:
            connection = self._connected(api)
            spawned = time.perf_counter()
            self._load(connection, state, f"{directory}/uffd.sock")
        except BaseException:
            self.end()
            raise
        self.spawn_seconds = spawned - began
        self.load_seconds = time.perf_counter() - spawned

    def end(self) -> None:
        """Kill the VMM and wait until it and its page server are gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._serving.join()
        self._listener.close()

    def _connected(self, path: str) -> Connection:
        while True:
            connection = Connection(path)
            try:
                connection.connect()
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                # Not poll(2), which would wait for a whole millisecond.
                if select.select([self._pidfd], [], [], RETRY_SECONDS)[0]:
                    raise RuntimeError("the VMM of a bare fork has ended") from None
            else:
                return connection

    def _load(self, connection: Connection, state: Path, uffd: str) -> None:
        backend = {"backend_type": "Uffd", "backend_path": uffd}
        body = json.dumps({"snapshot_path": str(state), "mem_backend": backend, "resume_vm": True})
        with contextlib.closing(connection):
            connection.request("PUT", "/snapshot/load", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
        if answer.status != http.client.NO_CONTENT:
            raise RuntimeError(f"the VMM of a bare fork refused to load: {said!r}")

    def _serve(self, memory: Path) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return
        message, (uffd,), _, _ = socket.recv_fds(peer, 65536, 1)
        (mapping,) = json.loads(message)
        with peer, memory.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as source:
            pages = ctypes.c_char.from_buffer(source)
            self._answer_faults(uffd, peer, mapping["base_host_virt_addr"], ctypes.addressof(pages))
            del pages
        os.close(uffd)

    def _answer_faults(self, uffd: int, peer: socket.socket, base: int, source: int) -> None:
        argument = bytearray(_COPY.size)
        poll = select.poll()
        poll.register(uffd, select.POLLIN)
        poll.register(peer, select.POLLRDHUP)
        while not any(fd == peer.fileno() for fd, _ in poll.poll()):
            # EAGAIN: answered meanwhile. EEXIST: somebody was faster. ENOENT, ESRCH: the VMM is going, as peer tells.
            with contextlib.suppress(BlockingIOError, FileExistsError, FileNotFoundError, ProcessLookupError):
                for (address,) in _ADDRESS.iter_unpack(os.read(uffd, 16 * _MESSAGE_BYTES)):
                    page = address & -PAGE_SIZE
                    _COPY.pack_into(argument, 0, page, source + page - base, PAGE_SIZE, 0, 0)
                    fcntl.ioctl(uffd, UFFDIO_COPY, argument)
