"""Admission under a cgroup's limit of memory: the supervisor's, one that it is moved into, and one of its VMs."""

from contextlib import AbstractContextManager

import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import FanOutRequest, ForkRequest
from tests.harness.memory_groups import MemoryGroup, memory_group
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.verified_guests import standby_source

MIB = 1 << 20
MANY = FanOutRequest(count=60)


@pytest.fixture(name="group")
def made_group() -> AbstractContextManager[MemoryGroup]:
    """Return a cgroup that is there while its context lasts."""
    return memory_group()


async def expect_refusal(client: SupervisorClient, group: MemoryGroup, size: int) -> None:
    """Have many forks refused for the sake of a group, and some made all the same."""
    told = f"{group.limit_file} ({size} MiB) of {group.folder}"
    error = await refused(client.fan_out("source", MANY))
    assert (error.status, error.code) == (409, "insufficient_resources")
    assert "memory for " in error.message
    assert told in error.message
    found = await client.fan_out_estimate("source", FanOutRequest(count=1))
    assert found.limiting == "memory"
    assert 0 < found.fits < 60


async def test_a_fan_out_that_the_group_of_the_supervisor_has_no_room_for_is_refused_by_its_name(
    embedded: Home, group: AbstractContextManager[MemoryGroup]
) -> None:
    with group as made:
        made.limit(500 * MIB)
        embedded.launcher = made.launcher()
        async with supervisor(embedded) as running:
            client = running.client
            await standby_source(client)
            await expect_refusal(client, made, 500)
            two = await client.fan_out("source", FanOutRequest(count=2))
            assert all(child.error is None for child in two.children)
            await client.delete("source", cascade=True)


async def test_a_group_counts_from_when_the_supervisor_is_moved_into_it_or_it_is_limited(
    embedded: Home, group: AbstractContextManager[MemoryGroup]
) -> None:
    with group as made:
        async with supervisor(embedded) as running:
            client = running.client
            await standby_source(client)
            assert (await client.fan_out_estimate("source", MANY)).fits > 60
            made.take(running.process.pid)
            assert (await client.fan_out_estimate("source", MANY)).fits > 60
            made.limit(500 * MIB)
            await expect_refusal(client, made, 500)
            await client.delete("source", cascade=True)


async def test_the_group_into_which_the_forks_of_a_source_are_moved_counts_and_one_of_a_single_fork_does_not(
    embedded: Home, group: AbstractContextManager[MemoryGroup]
) -> None:
    with group as made:
        made.limit(300 * MIB)
        async with supervisor(embedded) as running:
            client = running.client
            await standby_source(client)
            one, other = [
                await client.fork("source", ForkRequest(name=name, share_memory=True, target_state="Running"))
                for name in ("one", "other")
            ]
            assert one.vmm_pid is not None
            assert other.vmm_pid is not None
            made.take(one.vmm_pid)
            assert (await client.fan_out_estimate("source", MANY)).fits > 60
            made.take(other.vmm_pid)
            await expect_refusal(client, made, 300)
            await standby_source(client, "stranger")
            assert (await client.fan_out_estimate("stranger", MANY)).fits > 60
            await client.delete("source", cascade=True)
            await client.delete("stranger")
