"""What an instance in a jail uses, as its cgroup tells."""

import os

import pytest

from supervisor.models import HostSnapshot
from tests.harness.supervisor_process import Home, supervisor, until, walking_source

MIB = 1 << 20
OVERHEAD = 100 * MIB


def sampled(host: HostSnapshot) -> bool:
    """Whether the only instance's VMM was looked at since its guest walks."""
    return any(one.rss_bytes > 4 * MIB and one.cpu_seconds > 0 for one in host.statistics)


@pytest.mark.skipif(os.geteuid() != 0, reason="jails are made by root")
async def test_statistics_of_an_instance_in_a_jail_have_what_its_cgroup_is_charged(firecracker_home: Home) -> None:
    firecracker_home.options = ("--jail", "on", "--jail-memory-overhead", str(OVERHEAD))
    async with supervisor(firecracker_home) as running:
        client = running.client
        await walking_source(client, "source", "passes=0", "hot_mib=4")
        await until(sampled, client)
        found = await client.stats("source")
        assert found.cgroup_memory_max_bytes == found.allocated_memory_bytes + OVERHEAD
        assert found.cgroup_memory_bytes is not None
        assert 4 * MIB < found.cgroup_memory_bytes < found.cgroup_memory_max_bytes
        assert found.cgroup_pids is not None
        # Firecracker's own thread, its API's and its vCPU's.
        assert found.cgroup_pids >= 3
        await client.delete("source")


async def test_of_one_in_none_there_is_nothing_of_a_cgroup(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", "passes=0", "hot_mib=1")
        found = await client.stats("source")
        assert (found.cgroup_memory_bytes, found.cgroup_memory_max_bytes, found.cgroup_pids) == (None, None, None)
        await client.delete("source")
