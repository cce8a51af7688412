"""VMs in jails on a host that has version 2 of cgroups alone: held to their bounds, and ended by their cgroups."""

from typing import Any

import pytest

from tests.harness.firecracker import firecracker_binary
from tests.linux.inside.jobs.jailed import FORKS, OVERHEAD, THREADS, WEIGHT
from tests.linux.nested_host import NestedHost
from tests.linux.report import Report

MEMORY = 256 << 20
"""Of the image."""


@pytest.fixture(scope="module")
def jailed(nested_host: NestedHost) -> Report:
    """Run the job."""
    jailer = firecracker_binary().with_name("jailer")
    if not jailer.exists():
        pytest.skip("the jailer beside Firecracker")
    return nested_host.run("jailed", jailer=str(jailer))


@pytest.mark.parametrize("name", ["source", *FORKS, "restored"])
def test_a_vmm_is_nobodys_and_may_nothing(jailed: Report, name: str) -> None:
    found = jailed[name]
    assert len(set(found["Uid"].split())) == 1
    assert int(found["Uid"].split()[0]) > 1_000_000
    assert int(found["CapEff"], 16) == 0
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


@pytest.mark.parametrize("name", ["source", *FORKS, "restored"])
def test_its_cgroup_is_its_own_and_has_the_bounds_of_the_options(jailed: Report, name: str) -> None:
    found = jailed[name]
    assert found["group"] == found["instance"]
    # But for the threads that KVM has there.
    assert found["alone"] is True
    assert found["memory.max"] == MEMORY + OVERHEAD
    assert found["pids.max"] == THREADS + 1
    assert found["cpu.weight"] == WEIGHT


def test_each_fork_is_another_user_s(jailed: Report) -> None:
    assert len({jailed[name]["Uid"] for name in ("source", *FORKS)}) == 1 + len(FORKS)


def test_its_usage_is_that_of_its_cgroup(jailed: Report) -> None:
    stats = jailed["stats"]
    assert 0 < stats["cgroup_memory_bytes"] <= stats["cgroup_memory_max_bytes"] == MEMORY + OVERHEAD
    assert 2 < stats["cgroup_pids"] <= THREADS + 1


def test_cgroup_kill_ends_a_vm_which_the_supervisor_tells(jailed: Report) -> None:
    found: dict[str, Any] = jailed["killed instance"]
    assert found["state"] != "Running"
    assert "SIGKILL" in str(found)


def test_a_vm_beyond_its_memory_is_ended_by_the_kernel_which_the_supervisor_tells(jailed: Report) -> None:
    found = jailed["short instance"]
    assert "out of memory: its cgroup " in found["exit_message"]
    assert jailed["short"]["group"] in found["exit_message"]


def test_guests_go_on_as_anywhere(jailed: Report) -> None:
    for name in FORKS:
        found = jailed.ticks(name, "jailed")
        assert [tick for tick in found if tick.memory != "same"] == []


def test_nothing_is_left(jailed: Report) -> None:
    assert jailed["left"] == []
    assert jailed.stopped is None
