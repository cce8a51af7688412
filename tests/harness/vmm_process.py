"""A real VMM as a child process, embedded or Firecracker, driven by its API without the driver."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.harness.checkout import ROOT
from tests.harness.unix_http import TIMEOUT, connected, request

EMBEDDED = (sys.executable, "-m", "supervisor.embedded")


class Lines:
    """The lines of a pipe, as they come."""

    def __init__(self, pipe: IO[str]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._taken = 0
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

    def next(self) -> str:
        """The first line that has not been taken yet."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._lines) > self._taken, TIMEOUT)
            assert len(self._lines) > self._taken, f"no line after {self._lines}"
            self._taken += 1
            return self._lines[self._taken - 1]

    def take(self, last: str) -> list[str]:
        """The lines that have not been taken yet, up to and including `last`."""
        taken = [self.next()]
        while taken[-1] != last:
            taken.append(self.next())
        return taken

    def are_over(self, silence: float) -> bool:
        """Whether all have been taken, and none comes for `silence` seconds."""
        with self._changed:
            return not self._changed.wait_for(lambda: len(self._lines) > self._taken, silence)

    def rest(self) -> list[str]:
        """All lines of a pipe that has been closed at its other end."""
        self._thread.join(TIMEOUT)
        return self.all()


class VmmProcess:
    """A VMM in `folder`, with its API socket there: the embedded one, or what `program` is."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        name: str = "vmm",
        program: Sequence[str] = EMBEDDED,
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
        return connected(self.socket)

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request; returns the status and the value of the answer's body."""
        self.log.until("Listening on API socket")
        return request(self.socket, method, path, body)

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

    def set_balloon(self, amount_mib: int) -> None:
        """Give the balloon another target."""
        self.do("PATCH", "/balloon", {"amount_mib": amount_mib})

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


Start = Callable[..., VmmProcess]


@contextmanager
def vmms(folder: Path) -> Iterator[Start]:
    """A function that starts VMMs in `folder`; they end with the context."""
    started: list[VmmProcess] = []

    def start(*arguments: str, **options: Any) -> VmmProcess:
        vmm = VmmProcess(folder, *arguments, name=f"vmm{len(started)}", **options)
        started.append(vmm)
        return vmm

    try:
        yield start
    finally:
        for vmm in started:
            vmm.close()
