"""A full disk: each verb fails and says so, its source is as it was, and with space again the same verb works."""

import contextlib
import itertools
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import (
    CheckpointRequest,
    CreateRequest,
    FanOutRequest,
    ForkRequest,
    HostSnapshot,
    Instance,
    State,
)
from supervisor.snapshots.layers import all_names
from supervisor.store.records import InstanceRecord
from tests.harness.jails import until_jails_are_gone
from tests.harness.refusals import refused
from tests.harness.small_disk import BLOCK, SmallDisk, small_disk
from tests.harness.supervisor_process import Home, find, sample, supervisor, until, until_walking
from tests.harness.verified_guests import one_more_pass

SMALL = CreateRequest(name="source", image="pagewalker", size="48MB", cmd=("hot_mib=4", "passes=0"))
SHARED = ForkRequest(share_memory=True, target_state="Running")
COPY = ForkRequest(target_state="Running")
ENOUGH = 32
"""More names than any verb makes."""


@pytest.fixture
def disk(home: Home) -> Iterator[SmallDisk]:
    with small_disk(home.data, 256) as made:
        yield made
        home.kill_everything()


def named(name: str, request: ForkRequest) -> ForkRequest:
    return request.model_copy(update={"name": name})


def directories(home: Home) -> set[str]:
    """Return the names of all instances' directories, and see that none has a part of a snapshot, or one too many."""
    for path in (home.data / "instances").glob("*/instance.json"):
        record = InstanceRecord.model_validate_json(path.read_bytes())
        found = {one.name for one in path.parent.iterdir()}
        assert {name for name in found if name.startswith(("state", "mem"))} == set(all_names(record.snapshot))
        assert not [name for name in found if name.startswith(".") or name.endswith(".new")]
    assert not list(home.data.glob("*/.*"))
    return {path.name for path in (home.data / "instances").iterdir()}


def known(instance: Instance) -> tuple[object, ...]:
    """Return what a failed verb may not change; its source may have a layer more, which a failed checkpoint wrote."""
    settled = State.RUNNING if instance.state is State.INITIALIZING else instance.state
    memory = (instance.memory_backend, instance.template_id, instance.fork_kind, instance.locked_by)
    return instance.name, settled, instance.vmm_pid, instance.has_snapshot, instance.busy, *memory


async def short(
    home: Home, disk: SmallDisk, client: SupervisorClient, verb: Callable[[], Awaitable[object]], *blocks: int
) -> int:
    """Ask for a verb with few free blocks, and then with room for more and more names, until it works.

    What fails has to have changed nothing. Return how often it failed: each time at a later step.
    """
    shortages = (disk.crowded(names) for names in range(ENOUGH))
    for failures, shortage in enumerate(itertools.chain(map(disk.filled, blocks), shortages)):
        await until_jails_are_gone(home, await client.snapshot())
        there, before = directories(home), [known(one) for one in await client.instances()]
        try:
            with shortage:
                await verb()
            return failures
        except ApiError as error:
            assert (error.code, error.status) == ("storage_failed", 500), error
            assert "No space left on device" in error.message, error
            assert "free space" in error.message, error
        await until_jails_are_gone(home, await client.snapshot())
        assert directories(home) == there
        assert [known(one) for one in await client.instances()] == before
    raise AssertionError(f"it did not work with room for {ENOUGH} names")


async def test_every_verb_fails_whole_and_works_when_there_is_space(home: Home, disk: SmallDisk) -> None:
    async with supervisor(home) as running:
        client = running.client
        lacking = partial(short, home, disk, client)
        assert await lacking(lambda: client.create(SMALL), 0, 1, 2) >= 6
        await until_walking(client, "source")
        for name in ("one", "two"):
            checkpoint = CheckpointRequest(name=name)
            assert await lacking(partial(client.checkpoint, "source", checkpoint), 0, 1, 4, 512) >= 8
            await one_more_pass(client, "source")
        assert await lacking(lambda: client.standby("source"), 0, 1, 4) >= 5
        assert await lacking(lambda: client.fork("source", named("copy", COPY)), 0, 1) >= 8
        assert await lacking(lambda: client.fork("source", named("share", SHARED)), 0) >= 8
        await one_more_pass(client, "copy", "share")

        await client.checkpoint("share", CheckpointRequest(name="chain"))
        assert await lacking(lambda: client.fork("chain", named("flat", COPY)), 0, 1, 100) >= 8
        assert await lacking(lambda: client.detach("share"), 0) >= 2
        await one_more_pass(client, "copy", "share", "flat")

        await client.restore("source")
        await one_more_pass(client, "source")
        assert (await client.standby("source")).layers == 2
        assert await lacking(lambda: client.restore("source"), 0, 1, 100) >= 4  # its layers are merged first
        await one_more_pass(client, "source")
        with disk.filled():
            assert (await client.stop("source")).state is State.STOPPED
        assert await lacking(lambda: client.start("source"), 0) >= 2
        with disk.filled():
            for name in ("flat", "chain", "share", "copy", "one", "two", "source"):
                await client.delete(name)
        await until_jails_are_gone(home, await client.snapshot())
        assert directories(home) == set()


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
async def test_a_fan_out_says_of_each_child_that_the_disk_is_full(home: Home, disk: SmallDisk) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(SMALL)
        await until_walking(client, "source")
        await client.standby("source")
        wanted = FanOutRequest(count=3)
        with disk.filled():
            error = await refused(client.fan_out("source", wanted))
            assert error.code == "insufficient_resources"
            assert "disk" in error.message
            forced = await client.fan_out("source", wanted.model_copy(update={"force": True}))
            assert [child.error and child.error.code for child in forced.children] == ["storage_failed"] * 3
            assert [one.name for one in await client.instances()] == ["source"]
        made = await client.fan_out("source", wanted)
        assert not [child.error for child in made.children if child.error]
        await one_more_pass(client, "source-1", "source-2", "source-3")


async def test_guests_and_their_page_server_do_without_logs_and_lists(home: Home, disk: SmallDisk) -> None:
    """The console, the log and the hot-page list grow no more; the guest is served, and the next recording is kept."""
    home.options = ("--record-seconds", "3", "--record-quiet-seconds", "3")
    async with supervisor(home) as running:
        client = running.client
        await client.create(SMALL)
        await until_walking(client, "source")
        await client.standby("source")
        recorder = await client.fork("source", named("recorder", SHARED))
        (template,) = (home.data / "templates").iterdir()
        log, console = template / "page_server.log", home.data / "instances" / recorder.id / "console.log"
        with disk.filled():
            fill_block(log)
            server = (await until(lambda host: bool(recording(host)), client)).templates[0].page_server_pid
            await until(lambda host: not recording(host), client)
            await until(lambda host: sample(host, "recorder").faults > 512, client)
            assert not list(template.rglob("hot_pages*"))
            assert log.stat().st_size % BLOCK == 0, "nothing more was written"
            fill_block(console)
            assert console.stat().st_size % BLOCK == 0
        await one_more_pass(client, "recorder")
        await client.fork("source", named("again", SHARED.model_copy(update={"record": "on"})))
        host = await until(lambda host: find(host, "again") is not None and not recording(host), client)
        assert (template / "recorded" / "hot_pages").stat().st_size > 0
        assert host.templates[0].page_server_pid == server
        await one_more_pass(client, "recorder", "again")


def fill_block(path: Path) -> None:
    """Write a file's last block full: another one is not to be had."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"\n" * (-path.stat().st_size % BLOCK or BLOCK)):
            pass


def recording(host: HostSnapshot) -> list[str]:
    return [one.name for one in host.instances if one.recording]


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
async def test_a_supervisor_starts_on_a_full_disk_and_knows_what_has_ended(home: Home, disk: SmallDisk) -> None:
    """It adopts what runs, shows what does not, and deletes, which is how an operator gets space."""
    async with supervisor(home) as running:
        client = running.client
        names = ("source", "doomed", "crashing")
        for name in names:
            await client.create(SMALL.model_copy(update={"name": name}))
        await until_walking(client, *names)
        await client.standby("source")
        await client.fork("source", named("share", SHARED))
        doomed, crashing = await client.instance("doomed"), await client.instance("crashing")
        assert doomed.vmm_pid and crashing.vmm_pid
        with disk.filled():
            os.kill(crashing.vmm_pid, signal.SIGKILL)
            await until(lambda host: state(host, "crashing") is State.STOPPED, client)
            await running.end(signal.SIGKILL)
            os.kill(doomed.vmm_pid, signal.SIGKILL)
            async with supervisor(home) as again:
                host = await until(lambda host: sample(host, "share").present_pages > 0, again.client)
                states = {one.name: one.state for one in host.instances}
                assert states == {
                    "source": State.STANDBY, "share": State.RUNNING, "doomed": State.STOPPED, "crashing": State.STOPPED,
                }  # fmt: skip
                assert "its record says otherwise" in again.log.read_text()
                await again.client.delete("doomed")
                await again.client.delete("crashing")
    async with supervisor(home) as last:
        await one_more_pass(last.client, "share")
        assert sorted(one.name for one in await last.client.instances()) == ["share", "source"]


def state(host: HostSnapshot, name: str) -> State | None:
    instance = find(host, name)
    return instance.state if instance else None
