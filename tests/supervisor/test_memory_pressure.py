"""Memory that runs out: the kernel ends a VMM first, says so, and supervisor and page servers go on."""

import os
import shutil
from pathlib import Path

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import FanOutRequest, ForkRequest, HostSnapshot, State
from supervisor.system.oom_score import PAGE_SERVER, SUPERVISOR, VMM, VMM_ABOVE, beside, give_way, serve_on
from supervisor.system.processes import status_field
from tests.harness.memory_groups import memory_group
from tests.harness.supervisor_process import Home, find, supervisor, until
from tests.harness.verified_guests import standby_source
from tests.harness.waiting import until_log_says

SYS_RESOURCE = 24
"""CAP_SYS_RESOURCE in linux/capability.h."""


@pytest.fixture
def may_lower() -> None:
    """Skip where this process may only raise an oom_score_adj."""
    if not int(status_field("self", "CapEff") or "0", 16) >> SYS_RESOURCE & 1:
        pytest.skip("CAP_SYS_RESOURCE")


def score(pid: int | None) -> int:
    """Return how much sooner than others a process is ended, in thousandths of the memory."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def set_score(pid: int | None, value: int) -> None:
    """Give a process another one."""
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(value))


async def told_scores(client: SupervisorClient) -> dict[str, object]:
    """Return what the capabilities say of them."""
    host = (await client.capabilities())["host"]
    assert isinstance(host, dict)
    told = host["oom_score_adj"]
    assert isinstance(told, dict)
    return told


def page_server(host: HostSnapshot) -> int:
    """Return the pid of the only template's page server."""
    (template,) = host.templates
    assert template.page_server_pid is not None
    return template.page_server_pid


@pytest.mark.parametrize(
    ("own", "page_servers", "vmms"),
    [(-1000, -800, 500), (-900, -800, 500), (-850, -800, 500), (0, 0, 800), (100, 100, 900), (1000, 1000, 1000)],
)
def test_vmms_are_far_above_a_supervisor_of_any_score_and_page_servers_never_below_it(
    own: int, page_servers: int, vmms: int
) -> None:
    found = beside(own)
    assert found[:3] == (own, page_servers, vmms)
    assert (found.problem is None) == (own <= SUPERVISOR)


def test_nobody_gives_itself_another_score_than_a_supervisor_has() -> None:
    before = score(os.getpid())
    for give in (serve_on, give_way):
        give(os.getpid())
        assert score(os.getpid()) == before


async def test_vmms_are_ended_before_page_servers_and_those_not_before_the_supervisor(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client)
        made = await client.fan_out("source", FanOutRequest(count=2, target_state="Running"))
        forks = [child.instance.vmm_pid for child in made.children if child.instance is not None]
        server = page_server(await client.snapshot())
        told = await told_scores(client)
        assert score(running.process.pid) == told["supervisor"]
        assert score(server) == told["page_servers"]
        assert [score(pid) for pid in forks] == [told["vmms"]] * 2
        assert (told["supervisor"], told["page_servers"], told["vmms"]) == beside(score(running.process.pid))[:3]
        assert score(forks[0]) - score(server) >= VMM_ABOVE
        # As one is that an earlier version has started, whose child has it from that.
        set_score(forks[0], score(forks[0]) - 1)
    async with supervisor(home) as running:
        client = running.client
        assert page_server(await client.snapshot()) == server
        assert (score(server), score(forks[0])) == (told["page_servers"], told["vmms"])
        await client.delete("source", cascade=True)


async def test_where_it_may_the_supervisor_lowers_its_own(embedded: Home, may_lower: None) -> None:
    async with supervisor(embedded) as running:
        assert score(running.process.pid) == SUPERVISOR
        assert (await told_scores(running.client))["problem"] is None


@pytest.mark.parametrize("own", [0, 150, 900])
async def test_without_the_right_to_lower_it_vmms_are_raised_above_the_supervisor_and_that_is_told_once(
    embedded: Home, own: int
) -> None:
    if not shutil.which("setpriv") or os.geteuid():
        pytest.skip("setpriv, and root")
    embedded.launcher = ("choom", "-n", str(own), "--", "setpriv", "--bounding-set=-sys_resource", "--")
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        made = await client.fan_out("source", FanOutRequest(count=2, target_state="Running"))
        forks = [child.instance.vmm_pid for child in made.children if child.instance is not None]
        told = await told_scores(client)
        assert (score(running.process.pid), score(page_server(await client.snapshot()))) == (own, own)
        assert [score(pid) for pid in forks] == [min(own + VMM_ABOVE, 1000)] * 2
        assert "CAP_SYS_RESOURCE" in str(told["problem"])
        assert running.log.read_text().count("oom_score_adj") == 1
        await client.delete("source", cascade=True)


async def test_one_that_is_protected_from_outside_keeps_that_and_its_vmms_do_not_inherit_it(
    embedded: Home, may_lower: None
) -> None:
    embedded.launcher = ("choom", "-n", "-1000", "--")
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        fork = await client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        assert (score(running.process.pid), score(fork.vmm_pid)) == (-1000, VMM)
        assert score(page_server(await client.snapshot())) == PAGE_SERVER
        await client.delete("source", cascade=True)


async def test_when_a_group_is_out_of_memory_a_vmm_ends_that_says_so_and_all_others_go_on(home: Home) -> None:
    # In jails VMMs are in groups of their own, wherever their supervisor is.
    home.options = ("--jail", "off")
    with memory_group() as group:
        home.launcher = group.launcher()
        async with supervisor(home) as running:
            client = running.client
            await standby_source(client)
            # The kernel may take several before the memory of the first is free, and is to find VMMs to take.
            await client.fan_out("source", FanOutRequest(count=8, target_state="Running", name_prefix="fork"))
            server = page_server(await client.snapshot())
            group.limit(group.used + (32 << 20))
            group.squeeze()
            host = await until(lambda host: any(one.state is State.STOPPED for one in host.instances), client)
            assert running.process.returncode is None
            assert page_server(host) == server
            assert psutil.pid_exists(server)
            for ended in (one for one in host.instances if one.state is State.STOPPED):
                assert ended.exit_message is not None
                assert f"out of memory: its cgroup {group.path} has none left" in ended.exit_message
            again = await client.fork("source", ForkRequest(name="again", share_memory=True, target_state="Running"))
            assert again.state is State.RUNNING
            await client.delete("source", cascade=True)


async def test_a_page_server_that_the_kernel_ends_is_replaced_and_that_is_said(embedded: Home) -> None:
    with memory_group() as group:
        async with supervisor(embedded) as running:
            client = running.client
            await standby_source(client)
            await client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
            server = page_server(await client.snapshot())
            # No more than a stranger has who takes memory beside it.
            set_score(server, 1000)
            group.take(server)
            group.limit(24 << 20)
            group.squeeze()
            host = await until(lambda host: page_server_of(host) not in (None, server), client)
            fork = find(host, "fork")
            assert fork is not None
            assert fork.state is State.RUNNING
            said = f"(pid {server}) of source died: out of memory: its cgroup {group.path}"
            await until_log_says(running.log, said)
            await client.delete("source", cascade=True)


def page_server_of(host: HostSnapshot) -> int | None:
    """Return the pid of the only template's page server, while it has one."""
    return next((one.page_server_pid for one in host.templates), None)
