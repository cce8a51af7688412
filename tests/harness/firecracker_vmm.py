"""A real Firecracker as a child process that runs pagewalker, and what a mem-file of it holds."""

import http.client
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from supervisor.guests.boot import kernel_path
from supervisor.guests.pagewalker import HOT_BASE, PAGE_SIZE, minimum_memory, pattern

DEADLINE: Final = 30.0
"""Seconds for what takes well under one where the machine is idle."""
MEMORY_MIB: Final = 64
SILENCE: Final = 0.1
"""Seconds in which a guest that had not halted would walk its hot set of HOT_MIB some twenty times."""
WORD: Final = struct.Struct("<Q")


class ApiConnection(http.client.HTTPConnection):
    """An HTTP connection to a VMM's API socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(str(self._path))


class Pipe:
    """Lines read from a file descriptor, each awaited until a deadline."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._buffer = b""

    def line(self) -> str:
        """Return the next whole line."""
        end = time.monotonic() + DEADLINE
        while b"\n" not in self._buffer:
            ready = self._poll.poll(max(0.0, end - time.monotonic()) * 1000)
            assert ready, f"no line within {DEADLINE} s, only {self._buffer!r}"
            data = os.read(self._fd, 4096)
            assert data, f"the pipe ended after {self._buffer!r}"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    def until(self, last: str) -> list[str]:
        """Return the lines up to and including `last`."""
        lines = [self.line()]
        while lines[-1] != last:
            lines.append(self.line())
        return lines

    def is_silent(self) -> bool:
        """Return whether nothing comes for SILENCE seconds."""
        return not self._buffer and not self._poll.poll(SILENCE * 1000)


class Vmm:
    """A Firecracker process with its console; leaving the context kills it."""

    def __init__(self, firecracker: Path, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        os.mkfifo(folder / "log")
        self._log = os.open(folder / "log", os.O_RDWR | os.O_CLOEXEC)
        self._process = subprocess.Popen(
            (str(firecracker), "--api-sock", "api.sock", "--log-path", "log", "--level", "Info", *arguments),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        self.console = Pipe(self._process.stdout.fileno())
        self._socket = folder / "api.sock"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._log)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def await_api(self) -> None:
        """Return when the log says that the API is served."""
        log = Pipe(self._log)
        while not log.line().endswith("API server started."):
            pass

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return what the answer's body says; None where it has none."""
        connection = ApiConnection(self._socket)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status in (200, 204), (path, answer.status, text)
        finally:
            connection.close()
        return json.loads(text) if text else None

    def set_balloon(self, amount_mib: int) -> None:
        self.call("PATCH", "/balloon", {"amount_mib": amount_mib})

    def pause(self) -> None:
        self.call("PATCH", "/vm", {"state": "Paused"})

    def resume(self) -> None:
        self.call("PATCH", "/vm", {"state": "Resumed"})

    def snapshot(self, folder: Path) -> Path:
        """Pause, write a Full snapshot as `folder`/state and `folder`/mem, and return the mem-file."""
        self.pause()
        folder.mkdir()
        paths = {"snapshot_path": str(folder / "state"), "mem_file_path": str(folder / "mem")}
        self.call("PUT", "/snapshot/create", {"snapshot_type": "Full", **paths})
        return folder / "mem"


def booted(
    firecracker: Path, folder: Path, arguments: str, memory_mib: int = MEMORY_MIB, **sections: dict[str, Any]
) -> Vmm:
    """Return a VMM that boots pagewalker with the command line `arguments`; `sections` are more of its config file."""
    config = folder.with_suffix(".json")
    machine = {"vcpu_count": 1, "mem_size_mib": memory_mib}
    source = {"kernel_image_path": str(kernel_path()), "boot_args": arguments}
    config.write_text(json.dumps({"boot-source": source, "drives": [], "machine-config": machine} | sections))
    return Vmm(firecracker, folder, "--config-file", str(config))


def restored(firecracker: Path, folder: Path, mem_file: Path, page_server: Path | None = None) -> Vmm:
    """Return a VMM that runs on from the snapshot beside `mem_file`, with its memory from `page_server` if any."""
    vmm = Vmm(firecracker, folder)
    try:
        vmm.await_api()
        backend = {"backend_type": "Uffd" if page_server else "File", "backend_path": str(page_server or mem_file)}
        state = str(mem_file.with_name("state"))
        vmm.call("PUT", "/snapshot/load", {"snapshot_path": state, "mem_backend": backend, "resume_vm": True})
    except BaseException:
        vmm.__exit__(None, None, None)
        raise
    return vmm


def passes(first: int, last: int) -> list[str]:
    return [f"pass {number}" for number in range(first, last + 1)]


def read(mem_file: Path, address: int, size: int) -> bytes:
    with mem_file.open("rb") as file:
        file.seek(address)
        return file.read(size)


def filled(start: int, end: int, seed: int) -> bytes:
    """Return what the pages from `start` to `end` have to hold in the hot set and in the ballast."""
    between = bytes(PAGE_SIZE - 2 * WORD.size)
    words = (WORD.pack(pattern(seed, address)) for address in range(start, end, PAGE_SIZE))
    return b"".join(word + between + word for word in words)


def hot_set(hot_mib: int, seed: int) -> bytes:
    return filled(HOT_BASE, minimum_memory(hot_mib), seed)


def with_flipped_byte(mem_file: Path, folder: Path, address: int) -> Path:
    """Return a sparse copy of a snapshot's mem-file in which one byte is another, beside a copy of the state-file."""
    folder.mkdir()
    shutil.copy(mem_file.with_name("state"), folder / "state")
    subprocess.run(("cp", "--sparse=always", str(mem_file), str(folder / "mem")), check=True)
    wrong = read(mem_file, address, 1)[0] ^ 0x40
    with (folder / "mem").open("r+b") as file:
        file.seek(address)
        file.write(bytes((wrong,)))
    return folder / "mem"


HOT_MIB: Final = 3
SEED: Final = 0xFEDC_BA98_7654_3210
