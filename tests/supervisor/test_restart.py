"""Supervisor and page servers are killed under many real forks: the next supervisor has the same tree, at once."""

import os
import signal
import time

import psutil

from supervisor.models import FanOutRequest, ForkRequest, Instance, State
from tests.harness.host_invariants import left_over
from tests.harness.supervisor_process import Home, supervisor, until
from tests.harness.verified_guests import standby_source, two_more_passes

FORKS = 16
ENDLESS = "passes=0"
RESTARTS = int(os.environ.get("FORKTUI_TEST_RESTARTS", "1"))
"""How often everything but the VMs is killed."""


def tree(instances: list[Instance]) -> list[Instance]:
    """What is to be the same, to the last field: a recording is the page server's, and goes with it."""
    return [one.model_copy(update={"recording": False}) for one in instances]


async def test_sixteen_real_forks_survive_their_supervisor_and_all_page_servers(firecracker_home: Home) -> None:
    async with supervisor(firecracker_home) as running:
        client = running.client
        await standby_source(client, "source", ENDLESS, "hot_mib=2")
        await client.fork("source", ForkRequest(name="middle", share_memory=True, target_state="Running"))
        await two_more_passes(client, "middle")
        await client.standby("middle")
        names = []
        for source in ("source", "middle"):
            result = await client.fan_out(source, FanOutRequest(count=FORKS // 2, prefetch="off", record="off"))
            assert [child.error for child in result.children] == [None] * (FORKS // 2)
            names += [child.name for child in result.children]
        before = tree(await client.instances())
        servers = [one.page_server_pid for one in (await until(lambda _: True, client)).templates]
        assert len(servers) == 2
        kill(running.process.pid, servers)
        await running.end(signal.SIGKILL)
    for turn in range(RESTARTS):
        began = time.monotonic()
        async with supervisor(firecracker_home) as running:
            client, ready = running.client, time.monotonic()
            after = tree(await client.instances())
            told = f"ready after {ready - began:.2f} s, the same tree of {len(after)} told after"
            print(f"{told} {time.monotonic() - began:.2f} s")
            assert after == before
            await until(lambda host: all(one.page_server_pid for one in host.templates), client)
            await two_more_passes(client, *names)
            servers = [one.page_server_pid for one in (await until(lambda _: True, client)).templates]
            if turn + 1 < RESTARTS:
                kill(running.process.pid, servers)
                await running.end(signal.SIGKILL)
            else:
                await client.delete("source", cascade=True)
    assert left_over(firecracker_home) == []


def kill(supervisor_pid: int, servers: list[int | None]) -> None:
    for pid in (supervisor_pid, *servers):
        assert pid is not None
        psutil.Process(pid).kill()


async def test_a_fork_whose_record_cannot_be_read_runs_on_and_is_there_again_once_it_can(
    firecracker_home: Home,
) -> None:
    async with supervisor(firecracker_home) as running:
        client = running.client
        await standby_source(client, "source", ENDLESS, "hot_mib=2")
        fork = await client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        await two_more_passes(client, "fork")
        await running.end(signal.SIGKILL)
    record = firecracker_home.data / "instances" / fork.id / "instance.json"
    written = record.read_text()
    record.write_text(written[:-20])
    async with supervisor(firecracker_home) as running:
        assert [one.state for one in await running.client.instances()] == [State.STANDBY, State.UNKNOWN]
        await running.end(signal.SIGKILL)
    assert fork.vmm_pid is not None
    assert psutil.pid_exists(fork.vmm_pid)
    record.write_text(written)
    async with supervisor(firecracker_home) as running:
        client = running.client
        assert (await client.instance("fork")).vmm_pid == fork.vmm_pid
        await two_more_passes(client, "fork")
        await client.standby("fork")
        for name in ("fork", "source"):
            await client.delete(name)
    assert left_over(firecracker_home) == []
