"""Consoles of a whole host: bounded, told, and whole through restarts of the supervisor and deaths of the holder."""

import asyncio
import contextlib
import os
from pathlib import Path

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.consoles.rotation import opened, previous
from supervisor.models import CreateRequest, ForkRequest, State
from tests.harness.supervisor_process import (
    PATIENCE,
    Home,
    console_holder,
    guest,
    supervisor,
    until,
    until_walking,
    walking_source,
)
from tests.harness.waiting import until as until_true

MOST = 256 << 10
FLOODS = 'case "$*" in *--api-sock*) (while :; do cat {flood} 2>/dev/null; done &);; esac; exec {vmm} "$@"'
"""A VMM whose stdout something writes to as fast as it can; Firecracker has made it one that does not wait."""


def size_of(home: Home, instance_id: str) -> int:
    """Return what an instance's console takes on the disk."""
    with opened(home.data / "instances" / instance_id / "console.log") as files:
        return sum(os.fstat(file.descriptor).st_size for file in files)


def printed(home: Home, instance_id: str) -> int:
    """Return how much was ever printed."""
    with opened(home.data / "instances" / instance_id / "console.log") as files:
        return files[-1].end if files else 0


async def killed_holder(home: Home, client: SupervisorClient) -> None:
    """Kill the console holder, and return once there is another."""
    before = await asyncio.to_thread(console_holder, home)
    assert before is not None
    psutil.Process(before).kill()
    await until(lambda _: console_holder(home) not in (None, before), client)


@pytest.fixture
def flooding(firecracker_home: Home, firecracker: Path) -> Home:
    """Return a home whose VMMs' consoles are flooded."""
    script = firecracker_home.root / "firecracker"
    flood = firecracker_home.root / "flood"
    flood.write_text("flood\n" * 50_000)
    script.write_text(f"#!/bin/sh\n{FLOODS.format(vmm=firecracker, flood=flood)}\n")
    script.chmod(0o755)
    firecracker_home.firecracker = script
    firecracker_home.options = ("--console-log-size", str(MOST))
    return firecracker_home


async def test_a_console_without_end_is_bounded_through_stop_and_start_and_told_of(flooding: Home) -> None:
    async with supervisor(flooding) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=1")))
        for again in range(2):
            await until_true(lambda: printed(flooding, source.id) > (again + 2) * 8 * MOST)  # noqa: B023
            assert size_of(flooding, source.id) <= MOST
            await client.stop("source")
            await client.start("source")
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.follow_log("source", 100_000)) as lines:
            assert (await anext(lines)).endswith("bytes before this are no longer kept --")
        files = [path.name for path in (flooding.data / "instances" / source.id).iterdir()]
        assert not any("unfinished" in name for name in files)
        await client.delete("source")
    assert flooding.processes() == []


async def test_guests_are_read_on_through_deaths_of_the_holder_and_of_the_supervisor(home: Home) -> None:
    async with supervisor(home) as running:
        await walking_source(running.client, "source", "passes=0", "hot_mib=1")
        await killed_holder(home, running.client)
        passes = guest(await running.client.snapshot(), "source").passes
        await until(lambda host: guest(host, "source").passes > passes, running.client)
        holder = await asyncio.to_thread(console_holder, home)
    async with supervisor(home) as running:
        assert await asyncio.to_thread(console_holder, home) == holder
        await until(lambda host: guest(host, "source").passes >= 1, running.client)
        # A fork begins a console of its own, and its guest is read from there.
        await running.client.standby("source")
        fork = await running.client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        await until_walking(running.client, "fork")
        # It may begin in the midst of a line, where its source was.
        assert "restored" in (home.data / "instances" / fork.id / "console.log").read_text().splitlines()[:2]
        assert holder is not None
    psutil.Process(holder).kill()
    async with supervisor(home) as running:
        passes = guest(await until(lambda host: guest(host, "fork").passes >= 1, running.client), "fork").passes
        await until(lambda host: guest(host, "fork").passes > passes, running.client)
        await running.client.delete("source", cascade=True)
    assert home.processes() == []


async def test_a_console_that_cannot_be_written_is_told_on_its_instance(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await walking_source(running.client, "source", "passes=0", "hot_mib=1")
        console = embedded.data / "instances" / source.id / "console.log"
        console.rename(previous(console))
        console.mkdir()
        told = await until(lambda host: "console.log" in (host.instances[0].state_error or ""), running.client)
        assert "cannot be written: it is a directory, and no file: " in (told.instances[0].state_error or "")
        console.rmdir()
        await until(lambda host: host.instances[0].state_error is None, running.client)
        assert "bytes were dropped here: it is a directory" in console.read_text()
        assert (await running.client.instance("source")).state is State.RUNNING
        await running.client.delete("source")


async def test_what_a_vmm_said_last_is_told_of_its_end(firecracker_home: Home, firecracker: Path) -> None:
    script = firecracker_home.root / "firecracker"
    words = "i=0; while [ $i -lt 3000 ]; do echo padding $i >&2; i=$((i+1)); done; echo no luck >&2; exit 3"
    script.write_text(f'#!/bin/sh\ncase "$*" in *--api-sock*) {words};; esac\nexec {firecracker} "$@"\n')
    script.chmod(0o755)
    firecracker_home.firecracker = script
    async with supervisor(firecracker_home) as running:
        with pytest.raises(Exception, match="exited with code 3: no luck"):
            await running.client.create(CreateRequest(name="source", image="pagewalker"))
