"""A real embedded VMM as a child process, and a small page server, for the tests."""

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from supervisor.guests import pagewalker
from supervisor.guests.pagewalker import PAGE_SIZE
from supervisor.uffd import kernel
from supervisor.uffd.memory_image import data_extents

ROOT = Path(__file__).resolve().parents[2]
KERNEL = Path(pagewalker.__file__).with_suffix(".elf")
PROGRAM = (sys.executable, "-m", "supervisor.embedded")
TIMEOUT = 20.0
"""Seconds until a line that does not come, or a process that does not end, fails a test."""


class Lines:
    """The lines of a pipe, as they come."""

    def __init__(self, pipe: IO[str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                self._add(line.rstrip("\n"))
        self._add(None)

    def _add(self, line: str | None) -> None:
        with self._changed:
            if line is None:
                self._ended = True
            else:
                self._lines.append(line)
            self._changed.notify_all()

    def all(self) -> list[str]:
        """The lines until now."""
        with self._changed:
            return list(self._lines)

    def more_than(self, count: int, timeout: float) -> bool:
        """Whether there are more than `count` lines within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._lines) > count, timeout)

    def until(self, mark: str, skip: int = 0) -> list[str]:
        """The lines up to the first that contains `mark`, not counting the first `skip` lines."""

        def found() -> int | None:
            return next((at for at, line in enumerate(self._lines) if at >= skip and mark in line), None)

        with self._changed:
            self._changed.wait_for(lambda: self._ended or found() is not None, TIMEOUT)
            at = found()
            assert at is not None, f"no {mark!r} in {self._lines}"
            return self._lines[: at + 1]

    def rest(self) -> list[str]:
        """All lines of a pipe that has been closed at its other end."""
        self._thread.join(TIMEOUT)
        return self.all()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


class EmbeddedVmm:
    """A VMM process in `folder`, with its API socket there."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        name: str = "vmm",
        program: Sequence[str] = PROGRAM,
        user: int | None = None,
    ) -> None:
        self.socket = folder / f"{name}.sock"
        self._process = subprocess.Popen(
            [*program, "--api-sock", self.socket.name, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.console = Lines(self._process.stdout)
        self.log = Lines(self._process.stderr)

    def connect(self) -> socket.socket:
        """A connection to the API, once it listens."""
        self.log.until("Listening on API socket")
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(TIMEOUT)
        peer.connect(str(self.socket))
        return peer

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request; returns the status and the value of the answer's body."""
        self.log.until("Listening on API socket")
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def do(self, method: str, path: str, body: Any = None) -> None:
        """One request that must succeed."""
        assert self.request(method, path, body) == (204, None)

    def refusal(self, method: str, path: str, body: Any = None) -> str:
        """One request that must be refused; returns the fault message."""
        status, answer = self.request(method, path, body)
        assert status == 400, answer
        assert list(answer) == ["fault_message"]
        return str(answer["fault_message"])

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def pause(self) -> None:
        """Stop the guest."""
        self.do("PATCH", "/vm", {"state": "Paused"})

    def resume(self) -> None:
        """Let the guest go on."""
        self.do("PATCH", "/vm", {"state": "Resumed"})

    def snapshot(self, name: str = "", snapshot_type: str = "Full") -> tuple[Path, Path]:
        """Pause and take a snapshot; returns its state-file and its mem-file."""
        self.pause()
        files = f"state{name}", f"mem{name}"
        body = {"snapshot_type": snapshot_type, "snapshot_path": files[0], "mem_file_path": files[1]}
        self.do("PUT", "/snapshot/create", body)
        return self.socket.parent / files[0], self.socket.parent / files[1]

    def load(self, state: Path, backend_type: str, path: Path, resume: bool = True, track: bool = False) -> None:
        """Load a snapshot, which must succeed."""
        body = {
            "snapshot_path": str(state),
            "mem_backend": {"backend_type": backend_type, "backend_path": str(path)},
            "resume_vm": resume,
            "enable_diff_snapshots": track,
        }
        self.do("PUT", "/snapshot/load", body)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once the process has ended."""
        return self._process.wait(TIMEOUT)

    def close(self) -> None:
        """End the process, however it is."""
        self._process.kill()
        self._process.wait()
        self.console.rest()
        self.log.rest()


Start = Callable[..., EmbeddedVmm]


@contextmanager
def vmms(folder: Path) -> Iterator[Start]:
    """A function that starts VMMs in `folder`; they end with the context."""
    started: list[EmbeddedVmm] = []

    def start(*arguments: str, **options: Any) -> EmbeddedVmm:
        vmm = EmbeddedVmm(folder, *arguments, name=f"vmm{len(started)}", **options)
        started.append(vmm)
        return vmm

    try:
        yield start
    finally:
        for vmm in started:
            vmm.close()


def write_config(
    folder: Path, boot_args: str = "", mem_size_mib: int = 64, balloon_mib: int | None = None, track: bool = False
) -> str:
    """Write a config file that boots pagewalker; returns its name."""
    config: dict[str, Any] = {
        "boot-source": {"kernel_image_path": str(KERNEL), "boot_args": boot_args},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": mem_size_mib, "track_dirty_pages": track},
    }
    if balloon_mib is not None:
        config["balloon"] = {"amount_mib": balloon_mib, "deflate_on_oom": False, "stats_polling_interval_s": 1}
    (folder / "vm.json").write_text(json.dumps(config))
    return "vm.json"


def extents(mem_file: Path) -> list[tuple[int, int]]:
    """Where a mem-file has data: [start, end) in bytes."""
    with mem_file.open("rb") as file:
        return list(data_extents(file.fileno(), mem_file.stat().st_size))


def merged(*layers: Path) -> bytes:
    """The memory that mem-files make, the oldest first."""
    memory = bytearray(layers[0].stat().st_size)
    for mem_file in layers:
        with mem_file.open("rb") as file:
            for start, end in extents(mem_file):
                memory[start:end] = os.pread(file.fileno(), end - start, start)
    return bytes(memory)


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
        for event, first, second, _ in kernel.messages(os.read(uffd, 64 * kernel.MESSAGE_BYTES)):
            if event == kernel.UFFD_EVENT_REMOVE:
                start, end = first - base, second - base
                self._removed_pages.update(range(start, end, PAGE_SIZE))
                with self._changed:
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
        except (FileExistsError, ProcessLookupError, FileNotFoundError):
            # Two threads wanted the page, or the VMM has gone.
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
