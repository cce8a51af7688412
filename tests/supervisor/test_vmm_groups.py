"""A VMM's processes are one group: answered by who was started, and ended together, whoever ends them."""

import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from forktui.client.api import ApiError
from supervisor.models import CreateRequest, ForkRequest, Instance, State
from tests.harness.jails import api_socket
from tests.harness.supervisor_process import PATIENCE, Home, RunningSupervisor, console_holder, find, supervisor, until

NEW = CreateRequest(name="source", image="pagewalker", cmd=("passes=1", "hot_mib=1"))
SHARED = ForkRequest(name="fork", share_memory=True, target_state="Running")
HELPERS = {
    "child": 'sleep 1000 & exec {vmm} "$@"',
    "child of a session of its own": 'setsid sleep 1000 & exec {vmm} "$@"',
    "daemon": '(setsid setsid -f sleep 1000 &) ; exec {vmm} "$@"',
    "child without an environment": 'env -i sleep 1000 & exec {vmm} "$@"',
}
"""Programs that leave a process behind before they become the VMM."""


@pytest.fixture
def wrapped(run_dir: Path, request: pytest.FixtureRequest, firecracker_home: Home, firecracker: Path) -> Home:
    """Return a home whose Firecracker is a script around it."""
    script = run_dir / "firecracker"
    told = f'case "$1" in --*version) exec {firecracker} "$@";; esac'
    script.write_text(f"#!/bin/sh\n{told}\n{request.param.format(vmm=firecracker)}\n")
    script.chmod(0o755)
    firecracker_home.firecracker = script
    return firecracker_home


def helper_of(home: Home) -> psutil.Process:
    """Return the process that the VMM's script has left."""
    (helper,) = [one for one in home.processes() if one.name() == "sleep"]
    return helper


def others(home: Home, running: RunningSupervisor) -> list[psutil.Process]:
    """Return the processes of a home but for its supervisor and its console holder."""
    spared = {running.process.pid, console_holder(home)}
    return [one for one in home.processes() if one.pid not in spared and one.status() != "zombie"]


@pytest.mark.parametrize("wrapped", ['{vmm} "$@"', '{vmm} "$@" & wait', 'setsid {vmm} "$@" & wait'], indirect=True)
async def test_a_script_that_does_not_exec_is_refused_and_leaves_nothing(wrapped: Home) -> None:
    async with supervisor(wrapped) as running:
        with pytest.raises(ApiError) as refused:
            await running.client.create(NEW)
        assert "source: its API socket is answered by pid " in refused.value.message
        assert refused.value.message.endswith(
            "was started: give --firecracker the program itself, or a script that execs it"
        )
        assert others(wrapped, running) == []
        assert [path for path in wrapped.run.iterdir() if path.name.endswith(".sock")] == [wrapped.socket]


@pytest.mark.parametrize("wrapped", ['{vmm} "$@" & until [ -S "$2" ]; do :; done; exit 0'], indirect=True)
async def test_a_vmm_that_forks_and_exits_is_refused_and_leaves_nothing(wrapped: Home) -> None:
    async with supervisor(wrapped) as running:
        with pytest.raises(ApiError, match=r"source: (the VMM has ended|its API socket is answered by pid)"):
            await running.client.create(NEW)
        assert others(wrapped, running) == []


@pytest.mark.parametrize("wrapped", ['exec {vmm} "$@"'], indirect=True)
async def test_a_script_that_execs_is_the_program(wrapped: Home) -> None:
    async with supervisor(wrapped) as running:
        await running.client.create(NEW)
        await running.client.wait("source", State.RUNNING, PATIENCE)
        await running.client.standby("source")
        await running.client.fork("source", SHARED)
        assert (await running.client.instance("fork")).state is State.RUNNING
        await running.client.delete("source", cascade=True)
        assert others(wrapped, running) == []


@contextlib.asynccontextmanager
async def helped(home: Home) -> AsyncIterator[tuple[RunningSupervisor, Instance, psutil.Process]]:
    """Run a supervisor with a VM whose VMM has left a process."""
    async with supervisor(home) as running:
        await running.client.create(NEW)
        await running.client.wait("source", State.RUNNING, PATIENCE)
        yield running, await running.client.instance("source"), helper_of(home)


@pytest.mark.parametrize("verb", ["stop", "standby", "delete"])
@pytest.mark.parametrize("wrapped", HELPERS.values(), ids=HELPERS, indirect=True)
async def test_what_a_vmm_has_started_ends_with_it(wrapped: Home, verb: str) -> None:
    async with helped(wrapped) as (running, _, helper):
        await getattr(running.client, verb)("source")
        assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("wrapped", HELPERS.values(), ids=HELPERS, indirect=True)
async def test_what_a_vmm_leaves_that_ends_by_itself_is_ended(wrapped: Home) -> None:
    async with helped(wrapped) as (running, source, helper):
        assert source.vmm_pid is not None
        os.kill(source.vmm_pid, signal.SIGKILL)
        await running.client.wait("source", State.STOPPED, PATIENCE)
        assert not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("wrapped", [HELPERS["daemon"]], indirect=True)
async def test_what_a_vmm_has_started_goes_on_with_it_while_no_supervisor_runs(wrapped: Home) -> None:
    async with helped(wrapped) as (running, _, helper):
        await running.end(signal.SIGKILL)
    async with supervisor(wrapped) as running:
        assert (await running.client.instance("source")).state is State.RUNNING
        assert helper.is_running()
        await running.client.stop("source")
        assert others(wrapped, running) == []


@pytest.mark.parametrize("wrapped", [HELPERS["daemon"]], indirect=True)
async def test_what_a_vmm_leaves_that_ends_while_no_supervisor_runs_is_ended_by_the_next(wrapped: Home) -> None:
    async with helped(wrapped) as (running, source, helper):
        await running.end(signal.SIGKILL)
        psutil.Process(source.vmm_pid).kill()
        psutil.wait_procs([psutil.Process(source.vmm_pid)], timeout=PATIENCE)
        assert helper.is_running()
    async with supervisor(wrapped) as running:
        assert (await running.client.instance("source")).state is State.STOPPED
        assert others(wrapped, running) == []


async def test_a_vm_whose_api_socket_another_process_has_taken_is_told_and_can_be_ended(home: Home) -> None:
    async with supervisor(home) as running:
        await running.client.create(NEW)
        await running.client.wait("source", State.RUNNING, PATIENCE)
        source = await running.client.instance("source")
        await running.end(signal.SIGKILL)
    path = api_socket(home, source.id)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as taker:
        taker.bind(str(path))
        taker.listen()
        async with supervisor(home) as running:
            assert f"answered by pid {os.getpid()}, and pid {source.vmm_pid} was started" in running.log.read_text()
            with pytest.raises(ApiError, match=f"is answered by pid {os.getpid()}"):
                await running.client.standby("source")
            await running.client.stop("source")
            host = await until(lambda host: True, running.client)
            stopped = find(host, "source")
            assert stopped is not None and stopped.state is State.STOPPED
            assert others(home, running) == []
