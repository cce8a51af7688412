"""A snapshot that the present VMM cannot load is refused before anything is started, and the refusal says why."""

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.errors import VmmError
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, HypervisorName, State
from supervisor.vmm.hypervisor import Hypervisor, StartedPrograms, available, file_identity, loads, snapshot_version
from tests.harness.supervisor_process import PATIENCE, Home, gathered, guest, supervisor, until
from tests.harness.verified_guests import standby_source

UPGRADED = "99.0.0"


def install(program: Path, binary: Path) -> None:
    """Put a copy of a binary where the supervisor looks for Firecracker, as a package manager does."""
    shutil.copy2(binary, program.with_suffix(".new"))
    program.with_suffix(".new").rename(program)


def upgrade(program: Path, binary: Path) -> None:
    """Put a Firecracker there that has another snapshot version, as far as it says."""
    script = f"""#!/bin/sh
[ "$1" = --snapshot-version ] && echo v{UPGRADED} && exit
[ "$1" = --version ] && echo Firecracker v1.99.0 && exit
exec {binary} "$@"
"""
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
    assert snapshot_version(found) == UPGRADED
    known = Hypervisor("firecracker", (str(program),), "1.12.1", "of the start", file_identity(program))
    assert snapshot_version(known) == "of the start"


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[int]:
    """Yield a process of a file that nobody may run any more."""
    program = tmp_path / "sleep"
    shutil.copy2(shutil.which("sleep") or "", program)
    with subprocess.Popen((program, "infinity")) as process:
        program.chmod(0o600)
        yield process.pid
        process.kill()


async def test_what_was_started_tells_the_version_of_what_runs(tmp_path: Path, foreign: int) -> None:
    program, asked = tmp_path / "firecracker", tmp_path / "asked"
    program.write_text(f"#!/bin/sh\necho $1 >> {asked}\necho v{UPGRADED}\n")
    program.chmod(0o755)
    hypervisor = Hypervisor("firecracker", (str(program),), "1.12.1", "6.1.0", file_identity(program))
    programs = StartedPrograms()
    with pytest.raises(VmmError, match=r"^vm: of which snapshot version its VMM is was not noted"):
        programs.version_found("vm", hypervisor, foreign, "1.11.0")
    assert programs.version_found("vm", hypervisor, foreign, "1.12.1") == "6.1.0"
    for _ in range(2):
        assert await programs.version_of(hypervisor, foreign) == UPGRADED
    assert programs.version_found("vm", hypervisor, foreign, "1.11.0") == UPGRADED
    assert asked.read_text() == "--snapshot-version\n"
    own = dataclasses.replace(hypervisor, program=file_identity(Path(f"/proc/{foreign}/exe")))
    assert programs.version_found("vm", own, foreign, "1.11.0") == "6.1.0"


async def test_a_vm_of_which_nobody_noted_the_version_is_told_and_runs_on(upgradable: Home, firecracker: Path) -> None:
    async with supervisor(upgradable) as running:
        made = await running.client.create(CreateRequest(name="runner", image="pagewalker", cmd=("passes=0",)))
        await running.client.wait("runner", State.RUNNING, PATIENCE)
    record = upgradable.data / "instances" / made.id / "instance.json"
    noted = json.loads(record.read_text())
    del noted["vmm_snapshot_version"]
    record.write_text(json.dumps(noted))
    async with supervisor(upgradable) as running:
        copy = await running.client.checkpoint("runner", CheckpointRequest(name="copy"))  # its file is there still
        assert copy.has_snapshot
    upgrade(upgradable.root / "firecracker", firecracker)
    async with supervisor(upgradable) as running:
        with pytest.raises(ApiError, match=r"runner: of which snapshot version its VMM is was not noted") as refused:
            await running.client.standby("runner")
        assert "start the supervisor with --firecracker and that version, or stop the instance" in refused.value.message
        still = await running.client.instance("runner")
        assert (still.state, still.vmm_pid is not None) == (State.RUNNING, True)
        for name in ("runner", "copy"):
            await running.client.delete(name)


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

        started_from = upgradable.root / "started-from"
        started_from.hardlink_to(program)
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
        # What it was started from was asked then: what it is now, no process's to be trusted with, is not run.
        started_from.chmod(0o600)
        await client.standby("runner")
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
