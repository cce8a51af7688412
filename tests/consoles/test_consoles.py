"""A host's consoles: bounded and whole, whoever is killed or floods, with real processes that write."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from supervisor.consoles.bounded_file import BoundedFile
from supervisor.consoles.handle import Dropped
from supervisor.consoles.outputs import Bounded, Outputs, input_pipe
from supervisor.consoles.reading import LogReader
from supervisor.consoles.rotation import end_of, opened, previous
from supervisor.runtime.consoles import Consoles
from supervisor.store.layout import Layout
from supervisor.system.processes import start_time_of
from tests.harness.waiting import until

MOST = 256 << 10


class Host:
    """Consoles of a data directory of its own, and what is told of them."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / "data", root / "run")
        self.layout.instances.mkdir(parents=True)
        self.layout.run_dir.mkdir()
        self.reports: list[str] = []
        self.dropped: list[Dropped] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.consoles = self.supervisor()

    def supervisor(self) -> Consoles:
        """Return what another supervisor has of them."""
        return Consoles(self.layout, MOST, lambda level, told, *_, **__: self.reports.append(told), self.dropped.append)

    def log(self, name: str) -> Bounded:
        """Return the console of an instance."""
        self.layout.instance(name).mkdir(exist_ok=True)
        return Bounded(self.layout.console_log(name), MOST)

    async def start(self, outputs: Outputs, script: str) -> subprocess.Popen[bytes]:
        """Start a Python script that writes."""
        await self.consoles.ready()
        with self.consoles.pipes(outputs) as given, input_pipe() as stdin:
            command = (sys.executable, "-c", script)
            process = subprocess.Popen(command, stdin=stdin, stdout=given.descriptors[1])  # noqa: ASYNC220
        self.processes.append(process)
        given.follow(process.pid, start_time_of(process.pid))
        return process


@pytest.fixture
async def host(run_dir: Path) -> AsyncIterator[Host]:
    """Return one; its processes end with the test."""
    made = Host(run_dir)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        await made.consoles.drained(process.pid)
    await made.consoles.close()


def type_into(process: subprocess.Popen[bytes]) -> None:
    """Have it read a line."""
    Path(f"/proc/{process.pid}/fd/0").write_text("\n")


def said(path: Path) -> str:
    with opened(path) as files:
        return b"".join(os.pread(one.descriptor, MOST, 0) for one in files).decode()


def says(path: Path, words: str) -> Callable[[], bool]:
    return lambda: words in said(path)


async def gone(pid: int) -> None:
    """Return once a holder has ended, and reap it: the supervisor that spawned it is this process."""
    with contextlib.suppress(ChildProcessError):
        await asyncio.to_thread(os.waitpid, pid, 0)


FLOOD = "import os\nwhile True: os.write(1, b'flood ' * 10000)"
ONE_AND_TWO = "import sys\nfor n in (1, 2): print(n, flush=True); sys.stdin.readline()"
PACED = """
import sys
for n in range(100000):
    print(n)
    if n % 10000 == 9999:
        sys.stdout.flush()
        sys.stdin.readline()
"""
"""Less than a file takes, and then no more until a line is typed."""
COUNT = "import sys\nfor n in range({}): print(n, flush=True)\nsys.stdin.read()"


async def test_a_console_that_is_flooded_is_bounded_and_starves_no_other(host: Host) -> None:
    flooding = [host.log(f"flood{number}") for number in range(3)]
    for log in flooding:
        await host.start({1: log}, FLOOD)
    quiet = host.log("quiet")
    await host.start({1: quiet}, COUNT.format(500))
    await until(says(quiet.path, "\n499\n"))
    assert said(quiet.path).split() == [str(number) for number in range(500)]
    await until(lambda: all(end_of(log.path) > 20 * MOST for log in flooding))
    for log in flooding:
        with opened(log.path) as files:
            assert 0 < sum(os.fstat(one.descriptor).st_size for one in files) <= MOST


async def test_a_holder_that_is_killed_is_replaced_and_no_line_is_lost(host: Host) -> None:
    log = host.log("vm")
    await host.start({1: log}, "import sys\nfor n in range(20000): print(n, flush=True)\nsys.stdin.read()")
    await until(says(log.path, "\n1000\n"))
    for _ in range(3):
        pid = host.consoles.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: host.consoles.pid not in (None, pid))  # type: ignore[misc]
    await until(says(log.path, "\n19999\n"))
    assert said(log.path).split() == [str(number) for number in range(20000)]
    assert sum("died" in told for told in host.reports) == 3


async def test_however_many_starts_find_no_holder_one_cares_for_it_and_it_is_told_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    with monkeypatch.context() as missing:
        missing.setattr(sys, "executable", "/nonexistent")
        log = host.log("vm")
        with host.consoles.pipes({1: log}) as given, input_pipe() as stdin:
            command = (python, "-c", COUNT.format(10))
            process = subprocess.Popen(command, stdin=stdin, stdout=given.descriptors[1])  # noqa: ASYNC220
        host.processes.append(process)
        given.follow(process.pid, start_time_of(process.pid))
        tasks = len(asyncio.all_tasks())
        for _ in range(50):
            await host.consoles.ready()
        assert len(asyncio.all_tasks()) <= tasks + 1
        assert sum("no console holder can be started" in told for told in host.reports) == 1
    await until(says(log.path, "9\n"))


async def test_what_is_told_of_a_holders_death_counts_the_pipes_that_it_had(host: Host) -> None:
    own = subprocess.Popen(  # noqa: ASYNC220
        (sys.executable, "-c", "import sys; sys.stdin.read()"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    host.processes.append(own)
    log = host.log("vm")
    await host.start({1: log}, COUNT.format(10))
    host.consoles.adopt(own.pid, start_time_of(own.pid), {1: host.log("own")})
    pid = host.consoles.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: any("took over" in told for told in host.reports))
    died, took = host.reports
    assert died.endswith("died; what is written to 1 pipe waits for another")
    assert "took over 1 pipe in" in took


async def test_a_holder_that_hangs_is_replaced(host: Host) -> None:
    log = host.log("vm")
    await host.start({1: log}, COUNT.format(10))
    await until(says(log.path, "9\n"))
    pid = host.consoles.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await host.start({1: host.log("other")}, COUNT.format(10))
    await until(says(host.log("other").path, "9\n"))
    assert host.consoles.pid != pid
    await gone(pid)


async def test_a_holder_outlives_its_supervisor_and_the_next_finds_it(host: Host) -> None:
    log = host.log("vm")
    process = await host.start({1: log}, ONE_AND_TWO)
    await until(says(log.path, "1\n"))
    before = host.consoles.pid
    await host.consoles.close()
    type_into(process)
    await until(says(log.path, "2\n"))
    process.kill()
    process.wait()
    assert before is not None
    await gone(before)
    process = await host.start({1: host.log("second")}, COUNT.format(3))
    before = host.consoles.pid
    await host.consoles.close()
    host.consoles = host.supervisor()
    await host.consoles.reconnect()
    assert host.consoles.pid == before
    host.consoles.adopt(process.pid, start_time_of(process.pid), {1: host.log("second")})


async def test_a_console_whose_pipe_the_holder_refuses_is_told_once_and_kept_later(host: Host) -> None:
    await host.start({1: host.log("first")}, COUNT.format(10))
    await until(says(host.log("first").path, "9\n"))
    holder = host.consoles.pid
    assert holder is not None
    soft, hard = resource.prlimit(holder, resource.RLIMIT_NOFILE)
    assert soft == hard
    resource.prlimit(holder, resource.RLIMIT_NOFILE, (0, hard))
    log = host.log("vm")
    process = await host.start({1: log}, ONE_AND_TWO)
    await until(lambda: any("not kept" in told for told in host.reports))
    type_into(process)
    resource.prlimit(holder, resource.RLIMIT_NOFILE, (soft, hard))
    await until(says(log.path, "2\n"))
    assert said(log.path) == "1\n2\n"
    assert host.consoles.pid == holder
    assert len(host.reports) == 1


async def test_a_lost_run_directory_costs_no_console(host: Host) -> None:
    log = host.log("vm")
    process = await host.start({1: log}, ONE_AND_TWO)
    await until(says(log.path, "1\n"))
    before = host.consoles.pid
    assert before is not None
    host.layout.console_socket.unlink()
    assert await host.consoles.put_back()
    assert host.layout.console_socket.is_socket()
    host.layout.console_socket.unlink()
    await host.consoles.close()
    os.kill(before, signal.SIGKILL)
    await gone(before)
    type_into(process)
    host.consoles = host.supervisor()
    await host.consoles.reconnect()
    assert host.consoles.pid is None
    host.consoles.adopt(process.pid, start_time_of(process.pid), {1: log})
    host.consoles.go_on()
    await until(says(log.path, "2\n"))
    assert said(log.path) == "1\n2\n"


async def test_the_last_words_are_in_the_file_when_an_end_is_told(host: Host) -> None:
    for number in range(20):
        log = host.log(f"vm{number}")
        process = await host.start({1: log}, "print('x' * 100_000)\nprint('last words')")
        await asyncio.to_thread(process.wait)
        await host.consoles.drained(process.pid)
        assert log.path.read_text().endswith("last words\n")


async def test_a_holder_without_anything_to_hold_ends_with_its_supervisor(host: Host) -> None:
    await host.consoles.ready()
    pid = host.consoles.pid
    assert pid is not None
    await host.consoles.close()
    assert not psutil.pid_exists(pid)
    assert not host.layout.console_socket.exists()


async def test_what_cannot_be_written_is_counted_and_told_and_harms_no_other(host: Host) -> None:
    log, other = host.log("vm"), host.log("other")
    log.path.mkdir()
    process = await host.start({1: log}, "import sys\nwhile True: print('x' * 99, flush=True); sys.stdin.readline()")
    await host.start({1: other}, COUNT.format(10))
    await until(lambda: any(one.size == 100 for one in host.dropped))
    assert host.dropped[-1].path == log.path
    assert "a directory" in host.dropped[-1].reason
    await until(says(other.path, "9\n"))
    log.path.rmdir()
    type_into(process)
    await until(lambda: host.dropped[-1].size == 0)
    assert "100 bytes were dropped here" in log.path.read_text()


async def test_a_follower_that_keeps_up_loses_nothing_and_one_that_does_not_is_told(host: Host) -> None:
    log = host.log("vm")
    reader, late = LogReader(log.path), LogReader(log.path)
    process = await host.start({1: log}, PACED)
    read = b""

    def has_read(last: bytes) -> bool:
        nonlocal read
        piece = reader.read(1 << 20)
        assert piece.skipped == 0
        read += piece.data
        return read.endswith(last)

    for last in range(9999, 100_000, 10_000):
        await until(partial(has_read, b"\n%d\n" % last))
        type_into(process)
    assert read.split() == [b"%d" % number for number in range(100000)]
    piece = late.read(1 << 20)
    assert piece.skipped > 0
    rest = piece.data
    while more := late.read(1 << 20).data:
        rest += more
    assert piece.skipped + len(rest) == len(read)
    for one in (reader, late):
        one.release()


def test_one_file_may_be_bounded_twice_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(3):
        for file in (BoundedFile(path, 1000), BoundedFile(path, 1000)):
            file.write(b"line\n" * 90)
    assert sum(one.stat().st_size for one in (path, previous(path))) <= 1000
