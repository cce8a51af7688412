"""Processes that a killed supervisor left are ended, and nobody waits for whoever is to reap them."""

import asyncio
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from supervisor.runtime import orphans
from supervisor.store.layout import Layout
from supervisor.store.records import ProcessIdentity
from supervisor.system.process_group import ProcessGroup
from supervisor.system.processes import start_time_of
from tests.harness.supervisor_process import PATIENCE

ORPHAN = (sys.executable, "-c", "input()", "--api-sock", "vm.sock")
"""What is taken for a VMM in an instance's directory; it waits for its standard input."""
IGNORING_PARENT = """
import os, subprocess, sys
orphan = subprocess.Popen(sys.argv[2:], cwd=sys.argv[1], stdin=subprocess.PIPE, start_new_session=True)
print(orphan.pid, flush=True)
sys.stdin.read()
"""
"""It starts a program, and reaps it only by its own end."""

Ended = Callable[[Path, ProcessIdentity], None]


def reaped(data_dir: Path, identity: ProcessIdentity) -> None:
    assert orphans.reap(Layout(data_dir, data_dir), known=(), spared=()) == [identity.pid]


def ended(_: Path, identity: ProcessIdentity) -> None:
    orphans.end(identity)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "instances" / "a"
    made.mkdir(parents=True)
    (tmp_path / "templates").mkdir()
    return made


@pytest.fixture
def orphan(directory: Path) -> Iterator[ProcessIdentity]:
    """A process whose parent does not reap it."""
    command = (sys.executable, "-c", IGNORING_PARENT, str(directory), *ORPHAN)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        yield ProcessIdentity(pid=pid, start_time=start_time_of(pid))
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [reaped, ended])
async def test_an_orphan_that_its_parent_does_not_reap_is_not_waited_for(
    tmp_path: Path, orphan: ProcessIdentity, end: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It stays a zombie for as long as this test lasts: whoever waited for its parent would do so for all of this time.
    monkeypatch.setattr(orphans, "KILL_TIMEOUT", 2 * PATIENCE)
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(end, tmp_path, orphan)
    assert psutil.Process(orphan.pid).status() == psutil.STATUS_ZOMBIE


def test_only_what_nobody_knows_and_nobody_spares_is_ended(tmp_path: Path) -> None:
    found = {}
    for name in ("known", "spared", "lost"):
        (tmp_path / "instances" / name).mkdir(parents=True)
        found[name] = subprocess.Popen(
            (sys.executable, "-c", "print(flush=True); input()", *ORPHAN[3:]),
            cwd=tmp_path / "instances" / name,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    try:
        for process in found.values():
            # Its command line is there once it runs.
            assert process.stdout is not None and process.stdout.readline()
        pid = found["known"].pid
        known = ProcessIdentity(pid=pid, start_time=start_time_of(pid))
        assert orphans.reap(Layout(tmp_path, tmp_path), (known,), ("spared",)) == [found["lost"].pid]
        assert found["lost"].wait() == -signal.SIGKILL
        assert (found["known"].poll(), found["spared"].poll()) == (None, None)
    finally:
        for process in found.values():
            process.kill()
            process.communicate()


def test_an_orphan_is_ended_though_nothing_is_known_of_its_group(
    tmp_path: Path, orphan: ProcessIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(ProcessGroup, "end", refuse)
    reaped(tmp_path, orphan)
    assert psutil.Process(orphan.pid).status() == psutil.STATUS_ZOMBIE


def test_the_process_of_another_start_is_let_alone(directory: Path) -> None:
    with subprocess.Popen(ORPHAN, cwd=directory, stdin=subprocess.PIPE) as process:
        orphans.end(ProcessIdentity(pid=process.pid, start_time=start_time_of(process.pid) - 1))
        pidfd = os.pidfd_open(process.pid)
        try:
            assert not select.select([pidfd], [], [], 0)[0]
        finally:
            os.close(pidfd)
            process.kill()
