"""The dashboard as a program on a terminal, beside hosts of thousands: keys, CPU, bytes, and the first thing drawn."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import statistics
import struct
import sys
import termios
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.bench import PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample, Spread

NAME: Final = "dashboard"
COLUMNS, LINES = 120, 40
KEY50, KEY95 = "key p50 ms", "key p95 ms"
CPU, READER, BYTES = "CPU %", "reader CPU %", "kB/s"
DRAWN, IMPORTS, BEYOND = "first paint s", "imports s", "beyond imports s"
COUNTERS_A_SECOND, CHANGES_A_SECOND = 2, 10
KEY_SECONDS: Final = (0.05, 0.25)
"""Between what a key has drawn and the next key: at no fixed place between two draws."""
SETTLE_SECONDS: Final = 0.5
PROGRAM: Final = """
import os, sys, time
began = time.perf_counter()
import forktui.__main__, forktui.cli.main, forktui.tui.app, textual.drivers.linux_driver
os.write({told}, f"{{began}} {{time.perf_counter()}}\\n".encode())
sys.exit(forktui.__main__.main())
"""
"""Says when its imports began and ended, by a clock that is the same in all processes: clock_gettime(2)."""
ENVIRONMENT: Final[Mapping[str, str]] = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "FORKTUI_ASCII": "0"}


@dataclass(frozen=True)
class Mode:
    """What happens on a host of so many instances, in the words of `told_crowd`; what a reader takes is compared."""

    instances: int
    happens: str
    keys: bool = False
    compared: bool = False


async def measure(bench: Bench) -> Result:
    """Measure each mode with a program and a host of its own."""
    many, few = bench.sizes.watched
    rate = bench.sizes.watched_rate
    busy, counters = f"{many:,}, {rate:,} events/s", f"{many:,}, all counters at {COUNTERS_A_SECOND} Hz"
    anywhere, seen = (f"{few:,}, {CHANGES_A_SECOND} changes/s {where}" for where in ("anywhere", "on the screen"))
    idle = f"{many:,}, idle"
    modes = {
        busy: Mode(many, f"events {rate}", keys=True, compared=True),
        counters: Mode(many, f"counters {COUNTERS_A_SECOND}", keys=True, compared=True),
        anywhere: Mode(few, f"changes {CHANGES_A_SECOND}"),
        seen: Mode(few, f"seen {CHANGES_A_SECOND}"),
        idle: Mode(many, "idle"),
    }
    folder, samples = bench.directory(NAME), count()

    async def sample(name: str) -> Sample:
        return await _sample(bench, folder / f"{next(samples)}.sock", modes[name])

    rounds = await Rounds.take(bench.rounds, tuple(modes), sample)
    bars = (
        Bar(f"{KEY95}, {busy}", rounds.spread(busy, KEY95), "at most", 50.0),
        Bar(f"CPU / reader's, {busy}", _to_reader(rounds, busy), "at most", 4.0),
        Bar(f"{KEY95}, {counters}", rounds.spread(counters, KEY95), "at most", 100.0),
        Bar(f"CPU / reader's, {counters}", _to_reader(rounds, counters)),
        Bar(f"{BYTES}, {anywhere}", rounds.spread(anywhere, BYTES), "at most", 10.0),
        Bar(f"{BYTES}, {seen}", rounds.spread(seen, BYTES), "at most", 10.0),
        Bar(f"{CPU}, {idle}", rounds.spread(idle, CPU), "at most", 2.0),
        Bar(f"{BEYOND}, {many:,}", rounds.spread(idle, BEYOND), "at most", 0.5),
    )
    title = f"instances shown on a terminal of {COLUMNS}x{LINES}, and what happens to them"
    return Result(NAME, title, rounds.rows(tuple(modes)), bars)


def _to_reader(rounds: Rounds, mode: str) -> Spread:
    pairs = zip(rounds.column(mode, CPU), rounds.column(mode, READER), strict=True)
    return Spread.of([one / other for one, other in pairs])


async def _sample(bench: Bench, socket: Path, mode: Mode) -> Sample:
    seconds = bench.sizes.watched_seconds
    found: dict[str, float] = {}
    async with _told_crowd(socket, mode.instances) as told:
        async with _dashboard(socket) as dashboard:
            await dashboard.until_drawn("i0000000")
            if mode.happens == "idle":
                found |= dashboard.start()
            await told.happen(mode.happens)
            await asyncio.sleep(min(SETTLE_SECONDS, seconds))
            found |= await _watched(dashboard, seconds)
            if mode.keys:
                found |= await _keys(dashboard, bench.sizes.keys)
        if mode.compared:
            async with _reader(socket) as pid:
                # Statistics come twice a second: in less it may have had nothing to read.
                found[READER] = await _cpu(pid, max(seconds, 1.0))
    return found


class Dashboard:
    """The program, which tells of its imports, and what it draws."""

    def __init__(self, pid: int, terminal: int, told: int) -> None:
        self.pid = pid
        self.bytes = 0
        self._terminal = terminal
        self._told = told
        self._began = time.perf_counter()
        self._text = b""
        self._drawn = asyncio.Event()

    def read(self) -> None:
        """Take what was drawn since."""
        # A terminal whose other end is closed is EIO, pty(7).
        with contextlib.suppress(OSError):
            new = os.read(self._terminal, 1 << 16)
            self.bytes += len(new)
            self._text += new
            self._drawn.set()

    async def until_drawn(self, words: str) -> float:
        """Wait for these words, which were not drawn before; returns the seconds since the key, or the start."""
        async with asyncio.timeout(PATIENCE):
            while words.encode() not in self._text:
                # Words that are cut by two reads are found as well.
                self._text = self._text[-len(words) :]
                self._drawn.clear()
                await self._drawn.wait()
        return time.perf_counter() - self._began

    def start(self) -> Sample:
        """Return how long the program took to what has just been drawn first."""
        drawn, told = time.perf_counter(), os.read(self._told, 1 << 10)
        began, imported = map(float, told.split())
        return {DRAWN: drawn - self._began, IMPORTS: imported - began, BEYOND: drawn - imported}

    def press(self, key: str) -> None:
        """Press a key."""
        self._text = b""
        self._began = time.perf_counter()
        os.write(self._terminal, key.encode())


class Told:
    """The process of `told_crowd`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def happen(self, what: str) -> None:
        """Have this happen from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n".encode())
        await _line(self._process)


async def _watched(dashboard: Dashboard, seconds: float) -> Sample:
    """Return what the program uses and draws while nobody presses a key."""
    before, began = dashboard.bytes, time.perf_counter()
    cpu = await _cpu(dashboard.pid, seconds)
    return {CPU: cpu, BYTES: (dashboard.bytes - before) / 1000 / (time.perf_counter() - began)}


async def _keys(dashboard: Dashboard, keys: int) -> Sample:
    """Go down the tree; a key is painted when the details are those of the row that it leads to."""
    random = Random(keys)
    took = []
    for number in range(1, keys + 1):
        await asyncio.sleep(random.uniform(*KEY_SECONDS))
        dashboard.press("j")
        took.append(await dashboard.until_drawn(f"i{number:07}") * 1e3)
    twentieths = statistics.quantiles(took, n=20, method="inclusive")
    return {KEY50: twentieths[9], KEY95: twentieths[18]}


async def _cpu(pid: int, seconds: float) -> float:
    """Return how much of a core a process uses in so many seconds, in percent."""
    before, began = _cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    return (_cpu_seconds(pid) - before) / (time.perf_counter() - began) * 100


def _cpu_seconds(pid: int) -> float:
    """Return for how long a process's threads have run; in nanoseconds at its first number: proc(5)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


@contextlib.asynccontextmanager
async def _dashboard(socket: Path) -> AsyncIterator[Dashboard]:
    """Run the program on a terminal while the context lasts."""
    terminal, device = pty.openpty()
    fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "SSH_CONNECTION")}
    told, telling = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM.format(told=telling), "--socket", str(socket)),
        stdin=device,
        stdout=device,
        stderr=device,
        env={**kept, **ENVIRONMENT},
        pass_fds=(telling,),
        start_new_session=True,
    )
    for theirs in (device, telling):
        os.close(theirs)
    dashboard = Dashboard(process.pid, terminal, told)
    asyncio.get_running_loop().add_reader(terminal, dashboard.read)
    try:
        yield dashboard
    finally:
        await _end(process)
        asyncio.get_running_loop().remove_reader(terminal)
        for ours in (terminal, told):
            os.close(ours)


@contextlib.asynccontextmanager
async def _told_crowd(socket: Path, instances: int) -> AsyncIterator[Told]:
    async with _module("benchmarks.told_crowd", str(socket), str(instances)) as process:
        yield Told(process)


@contextlib.asynccontextmanager
async def _reader(socket: Path) -> AsyncIterator[int]:
    async with _module("benchmarks.stream_reader", str(socket)) as process:
        yield process.pid


@contextlib.asynccontextmanager
async def _module(*command: str) -> AsyncIterator[Process]:
    """Run a module, which says that it is ready, while the context lasts."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *command, stdin=PIPE, stdout=PIPE)
    try:
        await _line(process)
        yield process
    finally:
        await _end(process)


async def _line(process: Process) -> None:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    if not line:
        raise RuntimeError("a process of the benchmark has ended")


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except BaseException:
        process.kill()
        raise
