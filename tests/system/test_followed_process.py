"""A process is followed to its end by its pidfd, whether or not it is a child, and let go of."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from supervisor.system.followed_process import FollowedProcess
from supervisor.system.processes import open_pidfd, start_time_of, status_field, wait_for_ends

TIMEOUT = 10.0


def outcome(status: os.waitid_result | None) -> tuple[int, int] | None:
    return (status.si_code, status.si_status) if status else None


def started(program: str) -> int:
    """Start a Python program as a child of this process, which nobody reaps but who follows it."""
    return os.posix_spawn(sys.executable, (sys.executable, "-c", program), os.environ)


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
