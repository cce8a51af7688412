"""The program that begins another one in a cgroup: as it is built, and what it begins."""

import os
import platform
import signal
import subprocess
from pathlib import Path

import pytest

from supervisor.guests.build import build
from supervisor.system.cgroup_limits import CgroupLimits
from supervisor.system.own_cgroups import CgroupsMissingError, OwnCgroups
from supervisor.vmm.into_cgroup import MACHINE, PROGRAM, SOURCE, begin, prepare
from tests.harness.jails import identity

pytestmark = pytest.mark.skipif(platform.machine() != MACHINE, reason=f"a program for {MACHINE}")


def test_the_shipped_program_is_what_its_source_makes(tmp_path: Path) -> None:
    build(tmp_path / "made.elf", str(SOURCE))
    assert (tmp_path / "made.elf").read_bytes() == PROGRAM.read_bytes()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    assert prepare(tmp_path / "begin")
    return tmp_path / "begin"


def test_what_it_begins_is_a_child_in_the_cgroup_and_leads_a_session(program: Path, tmp_path: Path) -> None:
    try:
        own = OwnCgroups.open(tmp_path)
    except CgroupsMissingError as reason:
        pytest.skip(str(reason))
    own.make("one", CgroupLimits(None, None, 100))
    try:
        with own.held("one") as (cgroup, tasks):
            pid = begin(program, cgroup, tasks, _started)
        assert own.processes("one") == (pid,)
        found = identity(pid).cgroups
        assert len(found) == 1 + len(tasks)
        assert {name.partition(":")[2] for name in found} == {f"/{own.parent('one')}"}
        assert (os.getsid(pid), os.getpgid(pid)) == (pid, pid)
        assert sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd")) == [0, 1, 2]  # noqa: PTH208
        own.kill("one")
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    finally:
        own.kill("one")
        own.remove("one")
        own.leave()


def _started(before: tuple[str, ...], descriptors: tuple[int, ...]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen((*before, "/bin/sleep", "1000"), pass_fds=descriptors)


def test_why_nothing_was_begun_is_told(program: Path, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            begin(program, folder, (), lambda before, fds: subprocess.Popen((*before, "/bin/true"), pass_fds=fds))
    finally:
        os.close(folder)
