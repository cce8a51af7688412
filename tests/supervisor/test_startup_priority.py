"""A supervisor goes first while it starts, and no longer; what it spawns never does."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from supervisor.models import CreateRequest
from tests.harness.supervisor_process import Home, supervisor, until

PROGRAM = """
import os, pathlib, threading
from supervisor.daemon.startup_priority import AUTOGROUP, FIRST, StartupPriority
def now(): return {os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")}
def group(): return AUTOGROUP.read_text().split()[-1] if AUTOGROUP.exists() else None
before = now(), group()
ahead = StartupPriority()
gate = threading.Event()
thread = threading.Thread(target=gate.wait)
thread.start()
first = now(), group()
ahead.spare_children()
spared = now(), group()
ahead.end()
after = now(), group()
gate.set()
session = before[1] and str(FIRST)
print(first == ({FIRST}, session), spared == (before[0], session), after == before)
"""

OVERLAPPING = """
import os
from supervisor.daemon.startup_priority import AUTOGROUP, StartupPriority
one, other = StartupPriority(), StartupPriority()
one.end()
other.end()
print(os.getpriority(os.PRIO_PROCESS, 0), AUTOGROUP.read_text().split()[-1] if AUTOGROUP.exists() else "0")
"""
"""As two supervisors that start in one session, or one after another that was killed while it started."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a negative nice value")
def test_all_threads_and_the_session_are_as_before_at_the_end() -> None:
    done = subprocess.run((sys.executable, "-c", PROGRAM), capture_output=True, text=True, start_new_session=True)
    assert done.stdout == "True True True\n", done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a negative nice value")
def test_what_another_start_has_set_is_not_taken_for_what_was_before() -> None:
    done = subprocess.run((sys.executable, "-c", OVERLAPPING), capture_output=True, text=True, start_new_session=True)
    assert done.stdout == "0 0\n", done.stderr


def priorities(pid: int) -> tuple[set[int], str]:
    """The nice values of a process's threads, and its session's."""
    tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    group = Path(f"/proc/{pid}/autogroup")
    session = group.read_text().split()[-1] if group.exists() else "0"
    return {os.getpriority(os.PRIO_PROCESS, task) for task in tasks}, session


async def test_a_supervisor_that_serves_is_like_any_other_process(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="one", image="pagewalker", cmd=("hot_mib=1", "passes=1")))
        process = psutil.Process(running.process.pid)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert [priorities(child.pid) for child in process.children()] == [({own}, "0")] * 2
        await until(lambda _: priorities(process.pid) == ({own}, "0"), running.client)
        await running.client.delete("one")
