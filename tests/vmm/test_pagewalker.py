"""pagewalker: its build, its command line, and what it does in a real Firecracker."""

import http.client
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from supervisor.errors import BadRequestError, DependencyMissingError, InvalidSizeError
from supervisor.guests import build as build_module
from supervisor.guests.boot import boot_args, kernel_path
from supervisor.guests.build import build
from supervisor.guests.pagewalker import (
    DEFAULT_BALLAST_MIB,
    DEFAULT_HOT_MIB,
    DEFAULT_PASSES,
    DEFAULT_SEED,
    HOT_BASE,
    KERNEL_BASE,
    MAX_HOT_MIB,
    MIB,
    PAGE_SIZE,
    SCRATCH_BASE,
    SCRATCH_PAGES,
    WORD_MASK,
    ballast_end,
    minimum_memory,
    pattern,
)
from supervisor.uffd import kernel

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


def walks(mem_file: Path, seed: int) -> set[int]:
    """Return by how much the scratch words are above their pattern: one number where the scratch set is consistent."""
    addresses = range(SCRATCH_BASE, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE)
    words = (WORD.unpack(read(mem_file, address, WORD.size))[0] - pattern(seed, address) for address in addresses)
    return {word & WORD_MASK for word in words}


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


# The file ------------------------------------------------------------------------------------------------------------


def test_the_shipped_elf_is_what_its_source_builds(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc")
    build(tmp_path / "pagewalker.elf")
    assert (tmp_path / "pagewalker.elf").read_bytes() == kernel_path().read_bytes()


def test_the_elf_is_a_static_x86_64_program_of_a_few_kib_at_kernel_base() -> None:
    elf = kernel_path().read_bytes()
    assert len(elf) < PAGE_SIZE
    assert elf[:6] == b"\x7fELF\x02\x01"
    kind, machine, _, entry = struct.unpack_from("<HHIQ", elf, 16)
    assert (kind, machine) == (2, 62)
    segment, _, offset, virtual, physical, file_size, memory_size = struct.unpack_from("<IIQQQQQ", elf, 64)
    assert (segment, offset, virtual, physical, file_size) == (1, 0, KERNEL_BASE, KERNEL_BASE, len(elf))
    assert KERNEL_BASE < entry < KERNEL_BASE + file_size < KERNEL_BASE + memory_size <= SCRATCH_BASE


@pytest.mark.parametrize(("command", "reason"), [(("no-such-gcc",), "gcc is not in PATH"), (("false",), "exit code 1")])
def test_a_build_that_cannot_be_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(build_module, "GCC", command)
    with pytest.raises(DependencyMissingError, match=reason):
        build(tmp_path / "pagewalker.elf")
    assert not (tmp_path / "pagewalker.elf").exists()


# The command line ----------------------------------------------------------------------------------------------------


def test_boot_args_name_what_pagewalker_reads() -> None:
    defaults = f"hot_mib={DEFAULT_HOT_MIB} passes={DEFAULT_PASSES} seed={DEFAULT_SEED}"
    assert boot_args() == f"{defaults} ballast_mib={DEFAULT_BALLAST_MIB}"
    most = boot_args(hot_mib=900, passes=0, seed=WORD_MASK, ballast_mib=MAX_HOT_MIB - 900)
    assert most == f"hot_mib=900 passes=0 seed={WORD_MASK} ballast_mib=92"


@pytest.mark.parametrize("hot_mib", [-1, 0, MAX_HOT_MIB + 1])
def test_boot_args_refuse_a_hot_set_that_is_not_mapped(hot_mib: int) -> None:
    with pytest.raises(InvalidSizeError, match=f"hot_mib={hot_mib}: it has to be 1 to 992"):
        boot_args(hot_mib=hot_mib)


@pytest.mark.parametrize("ballast_mib", [-1, MAX_HOT_MIB - DEFAULT_HOT_MIB + 1])
def test_boot_args_refuse_ballast_that_is_not_mapped(ballast_mib: int) -> None:
    with pytest.raises(InvalidSizeError, match=f"ballast_mib={ballast_mib} beside hot_mib=16: it has to be 0 to 976"):
        boot_args(ballast_mib=ballast_mib)


def test_ballast_ends_with_the_memory_or_with_what_is_mapped_of_it() -> None:
    assert ballast_end(MEMORY_MIB * MIB) == MEMORY_MIB * MIB == minimum_memory(hot_mib=3, ballast_mib=29)
    assert ballast_end(2048 * MIB) == 1024 * MIB


@pytest.mark.parametrize("value", [-1, WORD_MASK + 1])
@pytest.mark.parametrize("name", ["passes", "seed"])
def test_boot_args_refuse_what_is_not_64_bits(name: str, value: int) -> None:
    with pytest.raises(BadRequestError, match=f"{name}={value}: it has to be 0 to {WORD_MASK}"):
        boot_args(**{name: value})


# In Firecracker ------------------------------------------------------------------------------------------------------

HOT_MIB: Final = 3
PASSES: Final = 3
SEED: Final = 0xFEDC_BA98_7654_3210


@pytest.fixture(scope="module")
def finished(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mem-file of a guest that walked PASSES times, printed what it has to, and halted."""
    folder = tmp_path_factory.mktemp("finished")
    with booted(firecracker, folder / "vmm", boot_args(HOT_MIB, PASSES, SEED)) as vmm:
        assert vmm.console.until("done") == ["ready", *passes(1, PASSES), "done"]
        mem_file = vmm.snapshot(folder / "snapshot")
        vmm.resume()
        assert vmm.console.is_silent()
    return mem_file


@pytest.fixture(scope="module")
def walking(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mem-file of a guest that was paused somewhere in an endless walk."""
    folder = tmp_path_factory.mktemp("walking")
    with booted(firecracker, folder / "vmm", boot_args(HOT_MIB, passes=0, seed=SEED)) as vmm:
        vmm.console.until("pass 2")
        return vmm.snapshot(folder / "snapshot")


def test_the_hot_set_is_at_its_place_and_ends_where_it_should(finished: Path) -> None:
    assert read(finished, HOT_BASE, HOT_MIB * MIB) == hot_set(HOT_MIB, SEED)
    assert read(finished, minimum_memory(HOT_MIB), PAGE_SIZE) == bytes(PAGE_SIZE)
    assert read(finished, HOT_BASE - PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_the_scratch_set_counts_the_walks(finished: Path) -> None:
    assert walks(finished, SEED) == {PASSES}
    assert read(finished, SCRATCH_BASE + WORD.size, PAGE_SIZE - WORD.size) == bytes(PAGE_SIZE - WORD.size)
    assert read(finished, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_the_defaults_hold_and_foreign_words_are_ignored(firecracker: Path, tmp_path: Path) -> None:
    arguments = "root=/dev/vda  panic=1 xhot_mib=2 seed hot_mib_=3 -- passes:4"
    with booted(firecracker, tmp_path / "vmm", arguments) as vmm:
        assert vmm.console.until("done") == ["ready", *passes(1, DEFAULT_PASSES), "done"]
        mem_file = vmm.snapshot(tmp_path / "snapshot")
    assert read(mem_file, HOT_BASE, DEFAULT_HOT_MIB * MIB) == hot_set(DEFAULT_HOT_MIB, DEFAULT_SEED)
    assert read(mem_file, minimum_memory(DEFAULT_HOT_MIB), WORD.size) == bytes(WORD.size)


def test_a_restored_guest_says_so_and_counts_anew(firecracker: Path, tmp_path: Path, walking: Path) -> None:
    with restored(firecracker, tmp_path / "fork", walking) as fork:
        fork.console.until("restored")
        assert fork.console.until("pass 3") == passes(1, 3)
        again = fork.snapshot(tmp_path / "snapshot")
    with restored(firecracker, tmp_path / "fork-of-fork", again) as fork:
        fork.console.until("restored")
        assert fork.console.line() == "pass 1"


def test_a_paused_guest_that_goes_on_was_not_restored(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", boot_args(1, passes=0)) as vmm:
        assert vmm.console.until("pass 2") == ["ready", "pass 1", "pass 2"]
        vmm.pause()
        vmm.resume()
        assert vmm.console.until("pass 6") == passes(3, 6)


def test_a_guest_that_was_done_walks_again_where_it_is_restored(
    firecracker: Path, tmp_path: Path, finished: Path
) -> None:
    mem_file = finished
    for generation in range(1, 4):
        with restored(firecracker, tmp_path / f"fork-{generation}", mem_file) as fork:
            assert fork.console.until("done") == ["restored", *passes(1, PASSES), "done"]
            mem_file = fork.snapshot(tmp_path / f"snapshot-{generation}")
        assert walks(mem_file, SEED) == {(1 + generation) * PASSES}


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(HOT_BASE, id="first byte"),
        pytest.param(HOT_BASE + PAGE_SIZE - 3, id="last word of the first page"),
        pytest.param(HOT_BASE + MIB + 7 * PAGE_SIZE + 5, id="in the middle"),
        pytest.param(HOT_BASE + HOT_MIB * MIB - 1, id="last byte"),
        pytest.param(SCRATCH_BASE + 9 * PAGE_SIZE + 1, id="scratch"),
    ],
)
def test_a_wrong_byte_stops_the_walk_and_is_named(
    firecracker: Path, tmp_path: Path, finished: Path, address: int
) -> None:
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(finished, tmp_path / "wrong", address)) as fork:
        assert fork.console.line() == "restored"
        assert fork.console.line() == f"CORRUPT {address:#x}"
        assert fork.console.is_silent()


def test_a_wrong_byte_is_found_in_the_middle_of_a_walk(firecracker: Path, tmp_path: Path, walking: Path) -> None:
    address = HOT_BASE + 2 * MIB
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(walking, tmp_path / "wrong", address)) as fork:
        fork.console.until(f"CORRUPT {address:#x}")
        assert fork.console.is_silent()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("hot_mib=33", "hot_mib=33 and the 32 MiB below it do not fit in memory"),
        ("hot_mib=0", "hot_mib=0 is not 1 to 992"),
        ("hot_mib=993", "hot_mib=993 is not 1 to 992"),
        ("hot_mib=3 ballast_mib=30", "ballast_mib=30 does not fit in memory above the hot set"),
        (f"ballast_mib={WORD_MASK}", f"ballast_mib={WORD_MASK} does not fit in memory above the hot set"),
        ("seed=12x", "seed= is not a decimal number below 2^64"),
        ("passes= seed=1", "passes= is not a decimal number below 2^64"),
        ("seed=18446744073709551616", "seed= is not a decimal number below 2^64"),
        ("seed=184467440737095516150", "seed= is not a decimal number below 2^64"),
    ],
)
def test_a_command_line_that_cannot_be_followed_is_an_error(
    firecracker: Path, tmp_path: Path, arguments: str, reason: str
) -> None:
    with booted(firecracker, tmp_path / "vmm", arguments) as vmm:
        assert vmm.console.line() == f"error: {reason}"
        assert vmm.console.is_silent()


def test_all_memory_up_to_its_end_can_be_walked(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", boot_args(hot_mib=32, passes=1)) as vmm:
        assert vmm.console.until("done") == ["ready", "pass 1", "done"]
    with booted(firecracker, tmp_path / "ballast", boot_args(hot_mib=3, passes=1, ballast_mib=29)) as vmm:
        assert vmm.console.until("done") == ["ready", "pass 1", "done"]


def test_ballast_ends_at_the_first_gib(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", "hot_mib=990 ballast_mib=3", memory_mib=1100) as vmm:
        assert vmm.console.line() == "error: ballast_mib=3 does not fit in memory above the hot set"


# With a balloon ------------------------------------------------------------------------------------------------------

BALLAST_MIB: Final = 4
BALLAST_END: Final = ballast_end(MEMORY_MIB * MIB)
BALLAST: Final = BALLAST_END - BALLAST_MIB * MIB
PAGES: Final = MIB // PAGE_SIZE
"""Balloon pages in a MiB."""


def with_balloon(firecracker: Path, folder: Path, passes: int = 0, amount_mib: int = 0, statistics_s: int = 0) -> Vmm:
    """Return a VMM that boots pagewalker with ballast and a balloon device with the target `amount_mib`."""
    balloon = {"amount_mib": amount_mib, "deflate_on_oom": False, "stats_polling_interval_s": statistics_s}
    return booted(firecracker, folder, boot_args(HOT_MIB, passes, SEED, BALLAST_MIB), balloon=balloon)


def first_wrong_byte(address: int) -> int:
    """Return the first byte that is not zero of the page at `address` as the ballast was filled."""
    return address + next(at for at, byte in enumerate(filled(address, address + PAGE_SIZE, SEED)) if byte)


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


def walks_on(vmm: Vmm) -> bool:
    """Return whether the guest walks everything at least once more."""
    return all(vmm.console.line().startswith("pass ") for _ in range(2))


def ballast_from(first: int, end: int = BALLAST_END) -> set[int]:
    return set(range(first, end, PAGE_SIZE))


@pytest.fixture(scope="module")
def laden(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mem-file of an endlessly walking guest with ballast of which the balloon has taken nothing."""
    folder = tmp_path_factory.mktemp("laden")
    with with_balloon(firecracker, folder / "vmm") as vmm:
        assert vmm.console.until("pass 2") == ["ready", "pass 1", "pass 2"]
        return vmm.snapshot(folder / "snapshot")


def test_ballast_is_the_last_of_memory(laden: Path) -> None:
    assert read(laden, BALLAST, BALLAST_MIB * MIB) == filled(BALLAST, BALLAST_END, SEED)
    assert read(laden, BALLAST - PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert read(laden, HOT_BASE, HOT_MIB * MIB) == hot_set(HOT_MIB, SEED)


def test_the_balloon_follows_its_target_as_far_as_the_ballast_goes(firecracker: Path, tmp_path: Path) -> None:
    with with_balloon(firecracker, tmp_path / "vmm", statistics_s=60) as vmm:
        vmm.console.until("ready")
        for amount_mib, pages in ((2, 2 * PAGES), (3, 3 * PAGES), (9, BALLAST_MIB * PAGES), (1, PAGES)):
            vmm.set_balloon(amount_mib)
            vmm.console.until(f"balloon {pages}")
            statistics = vmm.call("GET", "/balloon/statistics")
            assert (statistics["target_mib"], statistics["actual_pages"]) == (amount_mib, pages)
        assert walks_on(vmm)
        mem_file = vmm.snapshot(tmp_path / "snapshot")
    assert read(mem_file, BALLAST, BALLAST_MIB * MIB) == bytes(BALLAST_MIB * MIB)


def test_the_balloon_takes_the_last_pages_and_the_others_keep_what_they_hold(firecracker: Path, tmp_path: Path) -> None:
    with with_balloon(firecracker, tmp_path / "vmm", amount_mib=1) as vmm:
        vmm.console.until(f"balloon {PAGES}")
        mem_file = vmm.snapshot(tmp_path / "snapshot")
    start = BALLAST_END - MIB
    assert read(mem_file, BALLAST, start - BALLAST) == filled(BALLAST, start, SEED)
    assert read(mem_file, start, MIB) == bytes(MIB)


def test_a_guest_that_is_done_follows_the_target(firecracker: Path, tmp_path: Path) -> None:
    with with_balloon(firecracker, tmp_path / "vmm", passes=1) as vmm:
        assert vmm.console.until("done") == ["ready", "pass 1", "done"]
        for amount_mib in (3, 1, 2, 0):
            vmm.set_balloon(amount_mib)
            assert vmm.console.line() == f"balloon {amount_mib * PAGES}"
        assert vmm.console.is_silent()


def test_a_balloon_without_ballast_takes_nothing(firecracker: Path, tmp_path: Path) -> None:
    balloon = {"amount_mib": 1, "deflate_on_oom": False}
    with booted(firecracker, tmp_path / "vmm", boot_args(HOT_MIB, passes=0), balloon=balloon) as vmm:
        assert vmm.console.until("pass 2") == ["ready", "pass 1", "pass 2"]
        vmm.set_balloon(2)
        assert vmm.console.until("pass 5") == passes(3, 5)


def test_ballast_without_a_balloon_is_verified(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", boot_args(HOT_MIB, 0, SEED, BALLAST_MIB)) as vmm:
        vmm.console.until("pass 2")
        mem_file = vmm.snapshot(tmp_path / "snapshot")
    address = BALLAST_END - 1
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(mem_file, tmp_path / "wrong", address)) as fork:
        fork.console.until(f"CORRUPT {address:#x}")
        assert fork.console.is_silent()


@pytest.mark.parametrize("address", [BALLAST, BALLAST + 5 * PAGE_SIZE - 2, BALLAST_END - PAGE_SIZE + 1])
def test_a_wrong_byte_of_the_ballast_is_named(firecracker: Path, tmp_path: Path, laden: Path, address: int) -> None:
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(laden, tmp_path / "wrong", address)) as fork:
        fork.console.until(f"CORRUPT {address:#x}")
        assert fork.console.is_silent()


def test_a_balloon_goes_on_where_it_was_snapshotted(firecracker: Path, tmp_path: Path, laden: Path) -> None:
    with restored(firecracker, tmp_path / "inflated", laden) as fork:
        fork.set_balloon(2)
        fork.console.until(f"balloon {2 * PAGES}")
        fork.pause()
        fork.set_balloon(3)
        inflated = fork.snapshot(tmp_path / "inflated-snapshot")
    assert read(inflated, BALLAST_END - 2 * MIB, 2 * MIB) == bytes(2 * MIB)
    with restored(firecracker, tmp_path / "deflated", inflated) as fork:
        fork.console.until(f"balloon {3 * PAGES}")
        fork.set_balloon(0)
        fork.console.until("balloon 0")
        fork.console.until("pass 3")
        deflated = fork.snapshot(tmp_path / "deflated-snapshot")
    with restored(firecracker, tmp_path / "again", deflated) as fork:
        fork.console.until("restored")
        assert fork.console.until("pass 2") == passes(1, 2)


def test_the_balloon_removes_just_its_pages_from_a_userfaultfd(firecracker: Path, run_dir: Path, laden: Path) -> None:
    with (
        PageServer(run_dir / "pages.sock", laden) as server,
        restored(firecracker, run_dir / "fork", laden, server.path) as fork,
    ):
        fork.console.until("restored")
        fork.console.until("pass 1")
        assert server.removed == set()
        fork.set_balloon(2)
        fork.console.until(f"balloon {2 * PAGES}")
        assert server.removed == ballast_from(BALLAST_END - 2 * MIB)
        fork.set_balloon(1)
        fork.console.until(f"balloon {PAGES}")
        assert walks_on(fork)
        fork.set_balloon(3)
        fork.console.until(f"balloon {3 * PAGES}")
        assert server.removed == ballast_from(BALLAST_END - 3 * MIB)
        fork.set_balloon(0)
        fork.console.until("balloon 0")
        assert walks_on(fork)
        assert server.removed == ballast_from(BALLAST_END - 3 * MIB)


def test_a_balloon_that_was_inflated_in_the_snapshot_deflates_in_a_fork(
    firecracker: Path, run_dir: Path, laden: Path
) -> None:
    with restored(firecracker, run_dir / "inflated", laden) as vmm:
        vmm.set_balloon(3)
        vmm.console.until(f"balloon {3 * PAGES}")
        inflated = vmm.snapshot(run_dir / "snapshot")
    with (
        PageServer(run_dir / "pages.sock", inflated) as server,
        restored(firecracker, run_dir / "fork", inflated, server.path) as fork,
    ):
        fork.console.until("restored")
        fork.set_balloon(2)
        fork.console.until(f"balloon {2 * PAGES}")
        assert walks_on(fork)
        assert server.removed == set()
        fork.set_balloon(4)
        fork.console.until(f"balloon {4 * PAGES}")
        assert server.removed == ballast_from(BALLAST, BALLAST_END - 2 * MIB)


def test_a_removed_page_that_is_answered_from_the_file_is_corrupt(
    firecracker: Path, run_dir: Path, laden: Path
) -> None:
    with (
        PageServer(run_dir / "pages.sock", laden, forgets=True) as server,
        restored(firecracker, run_dir / "fork", laden, server.path) as fork,
    ):
        fork.console.until("pass 1")
        fork.set_balloon(2)
        fork.console.until(f"balloon {2 * PAGES}")
        assert walks_on(fork)
        fork.set_balloon(1)
        fork.console.until(f"CORRUPT {first_wrong_byte(BALLAST_END - 2 * MIB):#x}")
        assert fork.console.is_silent()
