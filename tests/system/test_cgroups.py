"""Which cgroups limit a process: real ones, and layouts of hosts that this is not."""

import os
import subprocess
from pathlib import Path

import pytest

from supervisor.system import headroom
from supervisor.system.cgroups import Group, Hierarchies, is_alone
from supervisor.system.processes import is_kernel_thread
from tests.harness.memory_groups import MemoryGroup, memory_group

SECOND = "30 23 0:26 {root} {folder} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
FIRST = "35 31 0:32 {root} {folder} rw,relatime - cgroup cgroup rw,{controllers}\n"


def second(root: str = "/", folder: str = "/sys/fs/cgroup") -> str:
    return SECOND.format(root=root, folder=folder)


def first(controllers: str, root: str = "/") -> str:
    return FIRST.format(root=root, folder=f"/sys/fs/cgroup/{controllers}", controllers=controllers)


@pytest.mark.parametrize(
    ("mounts", "told", "folders"),
    [
        (second(), "0::/a/b", ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]),
        (second(), "0::/", ["/sys/fs/cgroup"]),
        (second(root="/docker/x"), "0::/docker/x/vms", ["/sys/fs/cgroup/vms", "/sys/fs/cgroup"]),
        (second(root="/docker/x"), "0::/docker/xy", []),
        (second(root="/docker/x"), "0::/other", []),
        # In a cgroup namespace: what is outside it, and a mount that was made outside it.
        (second(), "0::/../vms", []),
        (second(root="/.."), "0::/", ["/sys/fs/cgroup"]),
        (second(root="/../.."), "0::/a", ["/sys/fs/cgroup"]),
        (second(root="/.."), "0::/../vms", ["/sys/fs/cgroup/vms", "/sys/fs/cgroup"]),
        (second(folder="/a\\040b\\134c"), "0::/x", ["/a b\\c/x", "/a b\\c"]),
        (
            first("cpu") + first("memory"),
            "4:memory:/v\n1:cpu:/w\n0::/u",
            ["/sys/fs/cgroup/memory/v", "/sys/fs/cgroup/memory"],
        ),
        (first("pids,memory"), "4:pids,memory:/a:b", ["/sys/fs/cgroup/pids,memory/a:b", "/sys/fs/cgroup/pids,memory"]),
        (first("memory_x"), "4:memory:/v", []),
        ("", "0::/a\n4:memory:/b", []),
        (second(), "", []),
    ],
)  # fmt: skip
def test_the_groups_of_a_process_are_those_from_its_own_up_to_the_topmost_that_is_seen(
    mounts: str, told: str, folders: list[str]
) -> None:
    found = Hierarchies(mounts).groups(told, "memory")
    assert [str(group.folder) for group in found] == folders


def test_this_process_and_one_that_has_ended() -> None:
    hierarchies = Hierarchies.mounted()
    found = hierarchies.groups_of("self", "memory")
    assert found == hierarchies.groups_of(os.getpid(), "memory")
    assert all((group.folder / "cgroup.procs").exists() for group in found)
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert hierarchies.groups_of(process.pid, "memory") == []


MIB = 1 << 20
STAT = f"anon {MIB}\ninactive_file {6 * MIB}\nactive_file {3 * MIB}\nslab_reclaimable {MIB}\nunevictable {MIB}\n"
FILES = {"memory.max": "max", "memory.high": "max", "memory.current": str(100 * MIB), "memory.stat": STAT}


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, {}),
        ({"memory.max": str(150 * MIB)}, {"memory.max (150 MiB)": 60}),
        ({"memory.high": str(120 * MIB)}, {"memory.high (120 MiB)": 30}),
        ({"memory.max": str(95 * MIB)}, {"memory.max (95 MiB)": 5}),
        ({"memory.max": "0"}, {"memory.max (0 MiB)": -90}),
        ({"memory.max": str(150 * MIB), "memory.high": None}, {"memory.max (150 MiB)": 60}),
        ({"memory.max": str(150 * MIB), "memory.current": "torn"}, {}),
        ({"memory.max": None, "memory.high": None, "memory.current": None, "memory.stat": None}, {}),
        # More than it uses is not given up.
        ({"memory.max": str(150 * MIB), "memory.current": str(2 * MIB)}, {"memory.max (150 MiB)": 150}),
    ],
)
def test_what_a_group_of_the_second_version_leaves(
    tmp_path: Path, changes: dict[str, str | None], left: dict[str, int]
) -> None:
    for name, text in (FILES | changes).items():
        if text is not None:
            (tmp_path / name).write_text(f"{text}\n")
    found = headroom._left_in(Group(tmp_path, 2), "memory")
    assert {one.limit: one.amount for one in found} == {
        f"{what} of {tmp_path}": amount * MIB for what, amount in left.items()
    }


def limited(vmms: tuple[int, ...], group: MemoryGroup) -> list[str]:
    """Return which limits of a group, or of one below it, are heeded."""
    return [one.limit for one in headroom.memory(vmms) if one.group and one.group.folder.is_relative_to(group.folder)]


def test_a_group_that_vms_share_counts_and_one_that_a_vm_has_for_itself_does_not() -> None:
    with (
        memory_group() as above,
        memory_group(above.folder) as below,
        subprocess.Popen(["sleep", "600"]) as one,
        subprocess.Popen(["sleep", "600"]) as other,
    ):
        try:
            below.limit(64 * MIB)
            told = f"{below.limit_file} (64 MiB) of {below.folder}"
            below.take(one.pid)
            (group, *_) = Hierarchies.mounted().groups_of(one.pid, "memory")
            assert group.folder == below.folder
            assert is_alone(one.pid, group)
            assert limited((), above) == limited((one.pid, other.pid), above) == []
            above.limit(96 * MIB)
            assert limited((one.pid,), above) == [f"{above.limit_file} (96 MiB) of {above.folder}"]
            below.take(other.pid)
            assert told in limited((one.pid,), above)
            assert headroom.inside(group, (one.pid, other.pid, os.getpid(), 1 << 22)) == {one.pid, other.pid}
        finally:
            one.kill()
            other.kill()


def test_page_cache_that_would_be_given_up_is_left(tmp_path: Path) -> None:
    """Written and read in a group that has room for little else."""
    file = tmp_path / "cached"
    with memory_group() as group:
        group.limit(64 * MIB)
        write = f"head -c {48 * MIB} /dev/zero > {file}; sync {file}"
        subprocess.run([*group.launcher(), "sh", "-c", write], check=True)
        assert group.used > 40 * MIB
        found = headroom._left_in(Group(group.folder, group.version), "memory")
        assert min(one.amount for one in found if one.amount is not None) > 48 * MIB


def test_what_the_kernel_has_in_a_group_on_a_process_s_account_leaves_it_alone(tmp_path: Path) -> None:
    """KVM puts threads of its own there: the kernel's first is of the same kind."""
    if Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("the kernel's threads: they are in another pid namespace")
    assert is_kernel_thread(2)
    assert not is_kernel_thread(os.getpid())
    own, group = os.getpid(), Group(tmp_path, 2)
    for procs, alone in (
        (f"{own}\n", True),
        (f"{own}\n2\n", True),
        (f"1\n{own}\n", False),
        ("2\n", False),
        ("", False),
    ):
        (tmp_path / "cgroup.procs").write_text(procs)
        assert is_alone(own, group) is alone
