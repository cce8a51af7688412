"""A snapshot that the present VMM cannot load is refused before anything is started, and the refusal says why."""

import shutil
from pathlib import Path

import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest, HypervisorName, State
from supervisor.vmm.hypervisor import Hypervisor, available, file_identity, loads, snapshot_version
from tests.harness.supervisor_process import PATIENCE, Home, gathered, guest, supervisor, until
from tests.harness.verified_guests import standby_source

UPGRADED = "99.0.0"


def install(program: Path, binary: Path) -> None:
    """Put a copy of a binary where the supervisor looks for Firecracker, as a package manager does."""
    shutil.copy2(binary, program.with_suffix(".new"))
    program.with_suffix(".new").rename(program)


def upgrade(program: Path, binary: Path) -> None:
    """Put a Firecracker there that has another snapshot version, as far as it says."""
    script = f'#!/bin/sh\n[ "$1" = --snapshot-version ] && echo v{UPGRADED} && exit\nexec {binary} "$@"\n'
    program.with_suffix(".new").write_text(script)
    program.with_suffix(".new").chmod(0o755)
    program.with_suffix(".new").rename(program)


@pytest.fixture
def upgradable(firecracker_home: Home, firecracker: Path) -> Home:
    """Return a home whose Firecracker is a file of its own."""
    firecracker_home.firecracker = firecracker_home.root / "firecracker"
    install(firecracker_home.firecracker, firecracker)
    return firecracker_home


@pytest.mark.parametrize(
    ("name", "own", "version", "expected"),
    [
        ("firecracker", "6.1.0", "6.1.0", True),
        ("firecracker", "6.1.0", "6.0.9", True),
        ("firecracker", "6.1.0", "6.1.9", True),
        ("firecracker", "6.1.0", "6.2.0", False),
        ("firecracker", "6.1.0", "5.1.0", False),
        ("firecracker", "10.0.0", "9.0.0", False),
        ("embedded", "1.1.0", "1.1.0", True),
        ("embedded", "1.1.0", "1.0.0", False),
    ],
)
def test_what_loads_what(name: HypervisorName, own: str, version: str, expected: bool) -> None:
    assert loads(name, own, version) is expected


def test_a_program_is_asked_again_only_where_it_is_another_file(firecracker: Path, tmp_path: Path) -> None:
    program = tmp_path / "firecracker"
    install(program, firecracker)
    found = available(program)["firecracker"]
    assert isinstance(found, Hypervisor)
    assert found.program == file_identity(program)
    upgrade(program, firecracker)
    assert snapshot_version(found, program) == UPGRADED
    assert snapshot_version(found, firecracker) == found.snapshot_version
    known = Hypervisor("firecracker", (str(program),), "1.12.1", "of the start", file_identity(program))
    assert snapshot_version(known, program) == "of the start"


async def told_version(client: SupervisorClient) -> str:
    """Return Firecracker's snapshot version, as the supervisor says it."""
    runtimes = (await client.capabilities())["runtimes"]
    assert isinstance(runtimes, list)
    return str(next(one["snapshot_version"] for one in runtimes if one["name"] == "firecracker"))


async def refusals(client: SupervisorClient, name: str) -> list[str]:
    """Ask for all that loads a snapshot; return the refusals, all of which name what is missing."""
    outcomes = await gathered(
        client.restore(name),
        client.fork(name, ForkRequest(share_memory=True, target_state="Running")),
        client.fork(name, ForkRequest(share_memory=True)),
        client.fork(name, ForkRequest(target_state="Running")),
        client.fan_out(name, FanOutRequest(count=2)),
        client.fan_out(name, FanOutRequest(count=2, share_memory=False)),
    )
    messages = []
    for outcome in outcomes:
        assert isinstance(outcome, ApiError), outcome
        assert (outcome.status, outcome.code) == (501, "dependency_missing"), outcome
        messages.append(outcome.message)
    return messages


async def test_an_upgrade_refuses_old_snapshots_and_its_reversal_loads_them(
    upgradable: Home, firecracker: Path
) -> None:
    program = upgradable.root / "firecracker"
    async with supervisor(upgradable) as running:
        client = running.client
        version = await told_version(client)
        source = await standby_source(client)
        await client.create(CreateRequest(name="runner", image="pagewalker", cmd=("passes=0",)))
        await client.wait("runner", State.RUNNING, PATIENCE)

        upgrade(program, firecracker)
        for message in await refusals(client, "source"):
            assert f"source: its snapshot has version {version}, and {program} loads {UPGRADED}: start the" in message
        still = await client.instance("source")
        assert (still.state, still.mem_locked) == (State.STANDBY, False)
        assert sorted(one.name for one in await client.instances()) == ["runner", "source"]
        assert not list(upgradable.run.glob(f"*{source.id}*"))

    async with supervisor(upgradable) as running:
        client = running.client
        assert await told_version(client) == UPGRADED
        await client.standby("runner")  # by the program that it was started with
        for name in ("runner", "source"):
            for message in await refusals(client, name):
                assert f"{name}: its snapshot has version {version}, and" in message
        assert not (await until(lambda host: not host.templates, client)).templates
        cold = await client.fork("source", ForkRequest(name="cold", target_state="Stopped"))
        assert (await client.start(cold.id)).vmm_pid is not None

        install(program, firecracker)
        await client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        await client.restore("runner")
        host = await until(
            lambda host: all(guest(host, name).restored and guest(host, name).passes for name in ("fork", "runner")),
            client,
        )
        assert all(guest(host, name).corrupt is None for name in ("fork", "runner"))
        for name in ("fork", "runner", "cold", "source"):
            await client.delete(name)
