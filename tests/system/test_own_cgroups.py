"""Cgroups for VMs: real ones of this host, and what hosts that this is not would say."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from supervisor.system import headroom, own_cgroups
from supervisor.system.cgroup_limits import DEFAULT_WEIGHT, CgroupLimits, Setting, settings, shares
from supervisor.system.cgroups import Hierarchies, Mount
from supervisor.system.own_cgroups import CgroupsMissingError, OwnCgroups

MIB = 1 << 20
NO_LIMITS = CgroupLimits(None, None, 100)
LIMITS = CgroupLimits(64 * MIB, 8, 200)
FORKING = """
import os
first, (read, write) = os.getpid(), os.pipe()
for _ in range(3):
    os.fork()
os.write(write, b"x")
if os.getpid() == first:
    told = b""
    while len(told) < 8:
        told += os.read(read, 8)
    print("forked", flush=True)
while True:
    if not os.fork():
        os._exit(0)
    os.wait()
"""
"""Eight processes, each of which goes on to fork."""
REFUSED = """
import os
for count in range(9):
    try:
        if not os.fork():
            os.read(0, 1)
            os._exit(0)
    except OSError as error:
        print(count, error.errno, flush=True)
        break
"""
"""Says how many forks were granted before one was refused."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnCgroups]:
    """Yield the cgroups of a data directory; none is there afterwards."""
    try:
        made = OwnCgroups.open(tmp_path)
    except CgroupsMissingError as reason:
        pytest.skip(str(reason))
    yield made
    folders = made._folders()
    assert made.instances() == ()
    made.leave()
    assert [folder for folder in folders if folder.exists()] == []


@pytest.fixture
def limited(own: OwnCgroups) -> OwnCgroups:
    """Return the same where all controllers can be had."""
    if problem := own.problem(LIMITS):
        pytest.skip(problem)
    return own


@contextmanager
def running(own: OwnCgroups, name: str, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Have a program in a cgroup, which is ended and removed with the context."""
    launcher = ("sh", "-c", 'read line; exec "$@"', "sh")
    with subprocess.Popen((*launcher, *command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            (own._unified / name / "cgroup.procs").write_text(str(process.pid))
            own.join(name, process.pid)
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
            yield process
        finally:
            own.kill(name)
            process.wait()
            assert own.until_empty(name)
            assert own.processes(name) == ()
            assert own.remove(name)


def said(own: OwnCgroups, name: str, *files: str) -> list[str]:
    """Return what the first of some files says that is there, in whichever hierarchy."""
    found = [folder / name / file for file in files for folder in own._folders()]
    return next(path.read_text().split() for path in found if path.exists())


def test_the_limits_are_those_that_were_asked_for(limited: OwnCgroups) -> None:
    limited.make("one", LIMITS)
    assert said(limited, "one", "memory.max", "memory.limit_in_bytes") == [str(64 * MIB)]
    assert said(limited, "one", "pids.max") == ["8"]
    weight = said(limited, "one", "cpu.weight", "cpu.shares")
    assert weight in (["200"], ["2048"])
    found = limited.usage("one")
    assert found is not None
    assert (found.memory_max_bytes, found.pids, found.cpu_seconds) == (64 * MIB, 0, 0)
    # Made again it is a new one.
    limited.make("one", NO_LIMITS)
    found = limited.usage("one")
    assert found is not None
    assert found.memory_max_bytes is None
    assert limited.remove("one")
    assert limited.usage("one") is None


def test_what_is_in_it_is_known_counted_and_ended_with_all_that_it_forks(limited: OwnCgroups) -> None:
    limited.make("one", CgroupLimits(512 * MIB, 64, 100))
    limited.make("other", NO_LIMITS)
    assert limited.instances() == ("one", "other")
    with running(limited, "one", sys.executable, "-c", FORKING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        assert limited.has("one", process.pid)
        assert not limited.has("other", process.pid)
        assert not limited.has("one", os.getpid())
        found = limited.usage("one")
        assert found is not None
        assert found.memory_bytes is not None
        assert found.memory_bytes > MIB
        assert found.pids is not None
        assert found.pids >= 8
        assert found.cpu_seconds > 0
        assert not limited.until_empty("one", 0)
        assert not limited.remove("one")
        with pytest.raises(OSError, match="processes are in it"):
            limited.make("one", LIMITS)
    assert process.returncode == -signal.SIGKILL
    assert not limited.has("one", process.pid)
    assert limited.instances() == ("other",)
    assert limited.remove("other")


def test_without_cgroup_kill_each_process_is_ended_until_none_is_left(
    own: OwnCgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(path: Path, value: int | str) -> None:
        assert path.name == "cgroup.kill"
        raise FileNotFoundError

    own.make("one", NO_LIMITS)
    with running(own, "one", sys.executable, "-c", FORKING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        with monkeypatch.context() as patched:
            patched.setattr(own_cgroups, "write", older)
            own.kill("one")
        assert own.processes("one") == ()
    assert process.returncode == -signal.SIGKILL


def test_more_tasks_than_pids_max_are_refused(limited: OwnCgroups) -> None:
    limited.make("one", CgroupLimits(None, 3, 100))
    with running(limited, "one", sys.executable, "-c", REFUSED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"2 {errno.EAGAIN}\n"


def test_what_takes_more_memory_than_its_bound_is_ended(limited: OwnCgroups) -> None:
    limited.make("one", CgroupLimits(48 * MIB, None, 100))
    with running(limited, "one", sys.executable, "-c", f"b'x' * {256 * MIB}") as process:
        assert process.wait(60) == -signal.SIGKILL
        events = said(limited, "one", "memory.events", "memory.oom_control")
        assert int(events[events.index("oom_kill") + 1]) > 0


def test_its_bounds_are_no_other_vm_s_whatever_runs_in_it(limited: OwnCgroups) -> None:
    limited.make("one", CgroupLimits(64 * MIB, 8, 100))
    with running(limited, "one", "sh", "-c", "sleep 600 & echo started; wait") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert len(limited.processes("one")) == 2
        named = [one.limit for one in headroom.memory((process.pid,)) if limited.parent("one") in one.limit]
        assert named == []


def test_a_cgroup_that_somebody_removed_is_no_trouble(own: OwnCgroups) -> None:
    own.make("one", NO_LIMITS)
    for folder in own._folders():
        (folder / "one").rmdir()
    own.kill("one")
    assert own.until_empty("one")
    assert own.processes("one") == ()
    assert own.usage("one") is None
    assert own.remove("one")
    # And with all that it was in.
    for folder in own._folders():
        folder.rmdir()
    assert own.instances() == ()
    assert own.remove("one")
    own.make("one", NO_LIMITS)
    assert own.instances() == ("one",)
    assert own.remove("one")


def test_two_data_directories_have_cgroups_of_one_name_each(own: OwnCgroups, tmp_path: Path) -> None:
    own.make("one", NO_LIMITS)
    other = OwnCgroups.open(tmp_path / "other")
    other.make("one", NO_LIMITS)
    with running(other, "one", "sleep", "600") as process:
        own.kill("one")
        assert own.remove("one")
        assert other.processes("one") == (process.pid,)
        assert own.instances() == ()
    other.leave()


class Told(Hierarchies):
    """What another host has mounted."""

    told = ""

    @classmethod
    def mounted(cls) -> "Told":
        return cls(cls.told)


def test_without_the_second_version_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_cgroups, "Hierarchies", Told)
    with pytest.raises(CgroupsMissingError, match="no cgroups of version 2 are mounted here: mount them"):
        OwnCgroups.open(tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(30, "Read-only file system"), "read-only file system; mount it for writing; a container has it so"),
        (PermissionError(13, "Permission denied"), "permission denied; start the supervisor as root"),
    ],
)
def test_where_none_can_be_made_it_is_said_what_would_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    def refused(self: Path, *_: object, **__: object) -> None:
        raise error

    line = f"31 23 0:28 / {tmp_path} ro - cgroup2 cgroup2 rw"
    monkeypatch.setattr(Told, "told", line)
    monkeypatch.setattr(own_cgroups, "Hierarchies", Told)
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(CgroupsMissingError, match=f"^no cgroup can be made in {tmp_path}: {words}"):
        OwnCgroups.open(tmp_path)


def pretended(folder: Path, controllers: str, **files: str) -> OwnCgroups:
    """Return the cgroups of a hierarchy that is a directory of files."""
    name = PurePosixPath("forktui/x")
    for one in (folder, folder / "forktui", folder / name):
        one.mkdir(exist_ok=True)
        (one / "cgroup.controllers").write_text(controllers)
        (one / "cgroup.subtree_control").write_text("")
    for file, text in files.items():
        (folder / file.replace("_", ".")).write_text(text)
    return OwnCgroups(name, Mount(PurePosixPath("/"), folder, 2, ()), {})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (CgroupLimits(MIB, None, 100), "memory.max cannot be set: {} has no controller memory: boot the host without"),
        (CgroupLimits(None, 5, 100), "start the supervisor with --jail-pids 0"),
        (
            CgroupLimits(None, None, 50),
            "cpu.weight cannot be set: .*, or start .* with --jail-cpu-weight 100",
        ),
    ],
)
def test_a_missing_controller_is_in_the_way_of_a_limit_alone(tmp_path: Path, limits: CgroupLimits, words: str) -> None:
    own = pretended(tmp_path, "cpuset io")
    assert own.problem(NO_LIMITS) is None
    with pytest.raises(CgroupsMissingError, match=words.format(tmp_path)):
        own.make("one", limits)
    assert own.instances() == ()


def test_a_group_with_processes_of_its_own_as_in_a_container_is_not_made_to_pass_anything_on(tmp_path: Path) -> None:
    own = pretended(tmp_path, "memory pids cpu", cgroup_type="domain", cgroup_procs="1 7")
    assert "processes are in" in str(own.problem(LIMITS))
    assert (tmp_path / "cgroup.subtree_control").read_text() == ""


def test_the_controllers_are_passed_on_from_the_root_down(tmp_path: Path) -> None:
    assert pretended(tmp_path, "cpu memory pids", cgroup_procs="1 7").problem(LIMITS) is None


def test_settings_of_either_version() -> None:
    limits = CgroupLimits(3 * MIB, 7, 1)
    assert list(settings(limits, {"memory": 2, "pids": 2, "cpu": 2})) == [
        Setting("memory", "memory.max", 3 * MIB),
        Setting("memory", "memory.swap.max", 3 * MIB, if_there=True),
        Setting("pids", "pids.max", 7),
        Setting("cpu", "cpu.weight", 1),
    ]
    assert list(settings(limits, {"memory": 1, "pids": 1, "cpu": 1})) == [
        Setting("memory", "memory.limit_in_bytes", 3 * MIB),
        Setting("memory", "memory.memsw.limit_in_bytes", 3 * MIB, if_there=True),
        Setting("pids", "pids.max", 7),
        Setting("cpu", "cpu.shares", 10),
    ]
    assert [shares(weight) for weight in (1, 100, 10_000)] == [10, 1024, 102_400]


def test_unless_they_are_weighted_vms_are_no_groups_to_the_scheduler(tmp_path: Path) -> None:
    """As one group all of them would have the processors of one process beside the others' processes."""
    plain = OwnCgroups.open(tmp_path / "another", weighted=False)
    try:
        plain.make("one", CgroupLimits(64 * MIB, 10, DEFAULT_WEIGHT))
        assert plain.problem(CgroupLimits(64 * MIB, 10, DEFAULT_WEIGHT)) is None
        process = subprocess.Popen(("sleep", "1000"))
        try:
            plain.join("one", process.pid)
            told = Path(f"/proc/{process.pid}/cgroup").read_text()
            of_cpu = [line for line in told.splitlines() if "cpu" in line.split(":")[1].split(",")]
            assert not any("forktui" in line for line in of_cpu)
            assert any("forktui" in line for line in told.splitlines()) is bool(plain._of_first)
        finally:
            process.kill()
            process.wait()
        # What one that weighted them has left is found and removed all the same.
        weighted = OwnCgroups.open(tmp_path / "another")
        weighted.make("two", CgroupLimits(None, None, 50))
        assert plain.instances() == ("one", "two")
        assert plain.remove("two")
        assert weighted.instances() == ("one",)
    finally:
        plain.remove("one")
        plain.leave()
