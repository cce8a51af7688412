"""A process is followed to its end by its pidfd, whether or not it is a child, and let go of."""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from supervisor.system import process_group
from supervisor.system.followed_process import FollowedProcess
from supervisor.system.process_group import ProcessGroup, marked_environment
from supervisor.system.processes import open_pidfd, start_time_of, status_field, wait_for_ends

TIMEOUT = 10.0


def outcome(status: os.waitid_result | None) -> tuple[int, int] | None:
    return (status.si_code, status.si_status) if status else None


def started(program: str) -> int:
    """Start a Python program as a child of this process, which nobody reaps but who follows it."""
    return os.posix_spawn(sys.executable, (sys.executable, "-c", program), os.environ)


def leading(directory: Path, *helper: str) -> tuple[int, psutil.Process]:
    """Start a program that leads a group, as one started for a directory; return its pid, and what it has left."""
    reading, writing = os.pipe()
    # The helper tells its pid itself: by then it has begun the session that it is to have.
    script = f"{' '.join(helper)} sh -c 'echo $$; exec sleep 1000' & exec sleep 1000"
    pid = os.posix_spawn(
        "/bin/sh",
        ("sh", "-c", script),
        marked_environment(directory),
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)],
        setsid=True,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        return pid, psutil.Process(int(told.readline()))


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def until_over(process: psutil.Process) -> None:
    """Return when a process has ended, though whoever is to reap it takes its time."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(process.pid)
        try:
            await asyncio.to_thread(wait_for_ends, [pidfd], TIMEOUT)
        finally:
            os.close(pidfd)
    assert is_over(process)


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its standard input."""
    with subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_a_child_is_reaped_and_its_end_described() -> None:
    child = FollowedProcess.child(started("raise SystemExit(3)"), outcome)
    async with asyncio.timeout(TIMEOUT):
        assert await child.exited == (os.CLD_EXITED, 3)
    assert not psutil.pid_exists(child.pid)
    child.kill()
    child.disconnect()


async def test_a_killed_child_tells_the_signal() -> None:
    child = FollowedProcess.child(started("import signal; signal.pause()"), outcome)
    child.kill()
    async with asyncio.timeout(TIMEOUT):
        assert await child.exited == (os.CLD_KILLED, signal.SIGKILL)


async def test_a_process_that_is_let_go_of_goes_on(waiting: subprocess.Popen[bytes]) -> None:
    found = FollowedProcess.found(waiting.pid, start_time_of(waiting.pid), outcome)
    assert found is not None
    found.disconnect()
    assert found.exited.cancelled()
    found.kill()
    assert waiting.poll() is None


@pytest.mark.parametrize("follow", ["child", "found"])
async def test_one_that_cannot_be_watched_costs_no_descriptor_and_leaves_no_child(
    waiting: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, follow: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    loop = asyncio.get_running_loop()
    child = started("input()") if follow == "child" else waiting.pid
    start_time = start_time_of(child)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names
    monkeypatch.setattr(loop, "add_reader", refuse)
    with pytest.raises(OSError, match="No space left"):
        if follow == "child":
            FollowedProcess.child(child, outcome)
        else:
            FollowedProcess.found(child, start_time, outcome)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert psutil.pid_exists(child) == (follow == "found")


@pytest.mark.parametrize(
    "failure", [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), RuntimeError("can't start new thread")]
)
async def test_one_whose_group_cannot_be_looked_at_ends_and_takes_its_session_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def refuse(*_: object) -> tuple[int, ...]:
        raise failure

    monkeypatch.setattr(ProcessGroup, "end", refuse)
    pid, helper = leading(tmp_path)
    child = FollowedProcess.child(pid, outcome, partial(ProcessGroup, directory=tmp_path))
    child.kill()
    async with asyncio.timeout(TIMEOUT):
        assert await child.exited == (os.CLD_KILLED, signal.SIGKILL)
    assert not psutil.pid_exists(pid)
    await until_over(helper)


async def test_one_that_is_let_go_of_while_its_group_is_ended_is_not_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, looked = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def end(*_: object) -> tuple[int, ...]:
        loop.call_soon_threadsafe(looking.set)
        looked.wait(TIMEOUT)
        return ()

    monkeypatch.setattr(ProcessGroup, "end", end)
    pid, helper = leading(tmp_path)
    child = FollowedProcess.child(pid, outcome, partial(ProcessGroup, directory=tmp_path))
    child.kill()
    async with asyncio.timeout(TIMEOUT):
        await looking.wait()
    child.disconnect()
    looked.set()
    assert child.exited.cancelled()
    helper.kill()
    assert (await asyncio.to_thread(os.waitpid, pid, 0))[0] == pid


@pytest.mark.parametrize("refused", ["watch", "watch and look"])
@pytest.mark.parametrize("helper", ["", "setsid"])
async def test_a_leader_that_cannot_be_watched_is_reaped_and_the_first_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, helper: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def none_left(_: str) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    pid, left = leading(tmp_path, helper)
    with monkeypatch.context() as short:
        short.setattr(asyncio.get_running_loop(), "add_reader", refuse)
        if refused == "watch and look":
            short.setattr(os, "listdir", none_left)
        with pytest.raises(OSError, match="No space left"):
            FollowedProcess.child(pid, outcome, partial(ProcessGroup, directory=tmp_path))
    assert not psutil.pid_exists(pid)
    if refused == "watch" or not helper:
        await until_over(left)
    else:
        left.kill()


async def test_a_look_at_a_group_holds_up_nobody_and_asks_no_older_process_for_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[int] = set()
    threads: set[int] = set()
    mark_of = process_group.mark_of

    def asking(pid: int) -> str | None:
        asked.add(pid)
        threads.add(threading.get_ident())
        return mark_of(pid)

    monkeypatch.setattr(process_group, "mark_of", asking)
    pid, helper = leading(tmp_path, "setsid")
    older = {one.pid for one in psutil.process_iter() if one.create_time() < psutil.Process(pid).create_time() - 1}
    assert older
    child = FollowedProcess.child(pid, outcome, partial(ProcessGroup, directory=tmp_path))
    child.kill()
    async with asyncio.timeout(TIMEOUT):
        await child.exited
    assert is_over(helper)
    assert helper.pid in asked
    assert not asked & older
    assert threading.get_ident() not in threads


def test_neither_another_process_nor_a_zombie_is_opened(waiting: subprocess.Popen[bytes]) -> None:
    start_time = start_time_of(waiting.pid)
    assert open_pidfd(waiting.pid, start_time - 1) is None
    pidfd = open_pidfd(waiting.pid, start_time)
    assert pidfd is not None
    try:
        waiting.send_signal(signal.SIGKILL)
        wait_for_ends([pidfd], TIMEOUT)
    finally:
        os.close(pidfd)
    assert psutil.Process(waiting.pid).status() == psutil.STATUS_ZOMBIE
    assert open_pidfd(waiting.pid, start_time) is None
    waiting.wait()
    assert open_pidfd(waiting.pid, start_time) is None


def test_a_status_has_its_fields_and_no_others() -> None:
    assert status_field(os.getpid(), "Pid") == str(os.getpid())
    assert status_field("self", "No such line") is None
