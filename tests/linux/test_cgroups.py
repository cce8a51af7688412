"""Cgroups of VMs on a host that has version 2 alone."""

import signal

import pytest

from tests.linux.inside.jobs.cgroups import MEMORY, PIDS, WEIGHT
from tests.linux.nested_host import NestedHost
from tests.linux.report import Report


@pytest.fixture(scope="module")
def cgroups(nested_host: NestedHost) -> Report:
    """Run the job."""
    return nested_host.run("cgroups")


def test_all_controllers_are_passed_on_from_the_root_down(cgroups: Report) -> None:
    assert cgroups["problem"] is None
    assert [{"memory", "pids", "cpu"} - set(level) for level in cgroups["passed on"]] == [set(), set(), set()]


def test_a_cgroup_has_the_bounds_that_were_asked_for(cgroups: Report) -> None:
    files = cgroups["files"]
    assert files["memory.max"] == [str(MEMORY)]
    # No file where the kernel is built without swap.
    assert files["memory.swap.max"] in ([str(MEMORY)], [])
    assert (files["pids.max"], files["cpu.weight"]) == ([str(PIDS)], [str(WEIGHT)])
    assert cgroups["removed"] is True


def test_what_takes_more_memory_than_its_bound_is_ended_by_the_kernel_which_says_so(cgroups: Report) -> None:
    assert cgroups["memory ended by"] == -signal.SIGKILL
    assert cgroups["memory events"]["oom_kill"] == 1
    usage = cgroups["memory usage"]
    assert usage[0] <= MEMORY == usage[3]
    assert usage[1] > 0
    assert cgroups["memory removed"] is True


def test_a_fork_beyond_the_bound_is_refused(cgroups: Report) -> None:
    assert cgroups["pids ended by"] != 0
    assert cgroups["pids refused"] > 0
    assert cgroups["pids removed"] is True


def test_a_tree_of_processes_is_ended_at_once(cgroups: Report) -> None:
    assert cgroups["tree processes"] == 10
    assert cgroups["tree has"] == [True, False]
    assert cgroups["tree removed while it runs"] is False
    assert cgroups["tree ended by"] == -signal.SIGKILL
    assert cgroups["tree removed"] is True


def test_nothing_is_left(cgroups: Report) -> None:
    assert cgroups["instances"] == []
    assert cgroups["left"] == []
    assert cgroups.stopped is None
