"""How a VMM has ended is told once, and with no cause that is none, wherever it is told."""

import os
import signal

import pytest

from supervisor.models import CreateRequest, HostSnapshot, Instance, State
from tests.harness.supervisor_process import Home, RunningSupervisor, supervisor, until

WARNING = "2026-01-31T12:00:00.000000000 [vm:fc_vcpu 0] immediate_exit was disabled before proceeding\n"
NEW = CreateRequest(name="vm", image="pagewalker", cmd=("hot_mib=1",), size="64MB")
NOT_KNOWN = "its exit status is not known, for an earlier supervisor started it"


async def killed(running: RunningSupervisor, home: Home, number: int) -> str | None:
    """Return what an instance says that had a warning and then a signal."""
    one = await running.client.instance("vm")
    assert one.vmm_pid is not None
    with (home.data / "instances" / one.id / "vmm.log").open("a") as log:
        log.write(WARNING)
    os.kill(one.vmm_pid, number)
    return stopped(await until(lambda host: stopped(host).state is State.STOPPED, running.client)).exit_message


def stopped(host: HostSnapshot) -> Instance:
    (one,) = host.instances
    return one


@pytest.mark.parametrize("name", ["SIGKILL", "SIGABRT", "SIGQUIT", "SIGFPE", "SIGUSR1"])
async def test_a_signal_from_outside_is_told_without_what_was_written_before(home: Home, name: str) -> None:
    async with supervisor(home) as running:
        await running.client.create(NEW)
        assert await killed(running, home, signal.Signals[name]) == f"killed by {name}"
        await running.client.delete("vm")
    assert f"vm: its VMM ended: killed by {name}\n" in running.log.read_text()


async def test_a_warning_is_no_cause_where_the_exit_status_is_not_known(home: Home) -> None:
    async with supervisor(home) as running:
        await running.client.create(NEW)
    async with supervisor(home) as running:
        assert await killed(running, home, signal.SIGKILL) == NOT_KNOWN
        await running.client.delete("vm")
    assert f"vm: its VMM ended: {NOT_KNOWN}\n" in running.log.read_text()


async def test_what_firecracker_says_of_a_signal_is_told_where_its_exit_status_is_not_known(
    firecracker_home: Home,
) -> None:
    async with supervisor(firecracker_home) as running:
        await running.client.create(NEW)
    async with supervisor(firecracker_home) as running:
        message = await killed(running, firecracker_home, signal.SIGSEGV)
        assert message == f"{NOT_KNOWN}: Shutting down VM after intercepting signal 11, code 0."
        await running.client.delete("vm")
