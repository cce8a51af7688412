"""Deletion over the socket: what a plan promises, what a cascade does, and how it goes on after a step has failed."""

import asyncio
import os
import stat
from collections import Counter

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import DeletionPlan, FanOutRequest, ForkRequest, HostSnapshot, State
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, gathered, guest, sample, supervisor, until
from tests.harness.verified_guests import standby_source

SHARED = ForkRequest(share_memory=True, target_state="Running")


def disk_bytes(home: Home) -> int:
    """What the files of instances and templates take that have no name elsewhere, as the built-in kernel has."""
    files = [path.lstat() for folder in ("instances", "templates") for path in (home.data / folder).rglob("*")]
    # What runs in a jail has names there too.
    linked = [path.lstat() for path in (home.data / "jail" / "firecracker").rglob("*")]
    names = Counter(status.st_ino for status in (*files, *linked))
    found = {status.st_ino: status for status in files if stat.S_ISREG(status.st_mode)}
    return sum(status.st_blocks * 512 for inode, status in found.items() if status.st_nlink == names[inode])


def verified(host: HostSnapshot, name: str) -> bool:
    """Return whether a guest has walked its memory once, or has read a wrong byte."""
    return guest(host, name).passes >= 1 or guest(host, name).corrupt is not None


async def tree_of_five_levels(client: SupervisorClient) -> list[str]:
    """A fork of a fork and so on, each verified, with a copy and a sibling on the way; returns the line's names."""
    await standby_source(client, "source", "hot_mib=4")
    line = ["source"]
    for level in range(1, 6):
        name = f"level-{level}"
        await client.fork(line[-1], SHARED.model_copy(update={"name": name}))
        host = await until(lambda host, name=name: verified(host, name), client)  # type: ignore[misc]
        assert (guest(host, name).restored, guest(host, name).corrupt) == (True, None)
        if level < 5:
            await client.standby(name)
        line.append(name)
    await client.fork("level-1", ForkRequest(name="copy", target_state="Standby"))
    await client.fork("level-1", SHARED.model_copy(update={"name": "sibling"}))
    return line


async def test_a_tree_of_five_levels_goes_as_its_plan_says(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        line = await tree_of_five_levels(client)
        host = await until(lambda host: sample(host, "level-5").private_bytes > 0, client)
        on_disk = disk_bytes(home)
        plan = await client.deletion_plan("source", cascade=True)
        names = [one.name for one in plan.deletions]
        assert sorted(names) == sorted([*line, "copy", "sibling"])
        assert [name for name in names if name in line] == line[::-1], "forks come before their sources"
        assert {one.name for one in plan.deletions if one.running} == {"level-5", "sibling"}
        assert plan.running == 2
        assert abs(plan.disk_bytes - on_disk) < 64 << 10, "logs alone grow meanwhile"
        assert next(one for one in plan.deletions if one.name == "copy").fork_kind == "copy"
        by_name = {one.name: one for one in plan.deletions}
        assert by_name["level-5"].private_bytes >= sample(host, "level-5").private_bytes // 2
        assert len(await client.instances()) == len(names), "a dry run deletes nothing"

        await client.delete("source", cascade=True)
        assert await client.instances() == []
        assert disk_bytes(home) == 0
    assert home.processes() == []
    assert list((home.data / "instances").iterdir()) == list((home.data / "templates").iterdir()) == []
    assert [path.name for path in home.run.rglob("*") if path.name != "pages"] == []


async def test_what_a_part_of_a_tree_gives_back_is_what_nobody_else_has(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        await client.fork("source", ForkRequest(name="copy", target_state="Standby"))
        before = disk_bytes(embedded)
        plan = await client.deletion_plan("source", cascade=False)
        assert [one.name for one in plan.deletions] == ["source"]
        await client.delete("source")
        assert before - disk_bytes(embedded) == plan.disk_bytes, "the copy has the memory and the kernel too"
        assert plan.disk_bytes < 1 << 20
        last = await client.deletion_plan("copy")
        assert last.disk_bytes == disk_bytes(embedded) > 4 << 20
        await client.delete("copy")


async def test_every_layer_of_a_chain_is_counted_with_the_last_of_its_names(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        await client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        await until(lambda host: guest(host, "fork").passes >= 1, client)
        assert (await client.standby("fork")).layers == 2
        await client.fork("fork", SHARED.model_copy(update={"name": "below"}))
        part = await client.deletion_plan("fork", cascade=True)
        whole = await client.deletion_plan("source", cascade=True)
        assert 0 < part.disk_bytes < whole.disk_bytes - (4 << 20), "the oldest layer is the source's too"
        before = disk_bytes(home)
        await client.delete("fork", cascade=True)
        assert before - disk_bytes(home) >= part.disk_bytes, "logs grow meanwhile"
        last = await client.deletion_plan("source")
        assert last.disk_bytes == disk_bytes(home) > 4 << 20
        await client.delete("source")
    assert home.processes() == []


async def test_without_cascade_a_locked_source_is_refused_with_its_holders_dry_or_not(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        await client.fan_out("source", FanOutRequest(count=2))
        for work in (client.delete("source"), client.deletion_plan("source")):
            error = await refused(work)
            assert (error.status, error.code) == (409, "invalid_state")
            assert [detail.name for detail in error.details] == ["source-1", "source-2", None]
            assert "cascade=true" in error.message
        assert (await refused(client.delete("nobody", cascade=True))).status == 404
        assert (await refused(client.deletion_plan("nobody"))).status == 404
        await client.delete("source", cascade=True)


async def test_a_failed_step_stops_the_cascade_and_the_same_call_goes_on(
    embedded: Home,
) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        result = await client.fan_out("source", FanOutRequest(count=3))
        stuck = result.children[1].instance
        assert stuck is not None
        # A directory that cannot be renamed: what its new name would be is taken by one that is not empty.
        obstacle = embedded.data / "instances" / f".deleted-{stuck.id}"
        (obstacle / "in-the-way").mkdir(parents=True)

        error = await refused(client.delete("source", cascade=True))
        assert (error.status, error.code) == (500, "storage_failed")
        assert error.message.startswith("source: cascade stopped with 2 of 4 instances deleted: ")
        left = {one.name: one for one in await client.instances()}
        assert set(left) == {"source", stuck.name}
        assert (left[stuck.name].state, left[stuck.name].vmm_pid) == (State.RUNNING, stuck.vmm_pid)
        assert left["source"].locked_by == (stuck.name,)

        (obstacle / "in-the-way").rmdir()
        obstacle.rmdir()
        await client.delete("source", cascade=True)
        assert await client.instances() == []
    assert embedded.processes() == []


async def test_forks_that_are_made_during_a_cascade_are_never_left_without_their_source(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        await client.fan_out("source", FanOutRequest(count=6))
        outcomes = await gathered(
            client.delete("source", cascade=True),
            *(client.fork("source", SHARED.model_copy(update={"name": f"late-{n}"})) for n in range(4)),
            client.fork("source", ForkRequest(name="copy", target_state="Standby")),
            client.delete("source", cascade=True),
        )
        left = await client.instances()
        ids = {one.id for one in left}
        assert all(one.source_id in ids for one in left if one.source_id), (left, outcomes)
        refusals = [one for one in outcomes if isinstance(one, BaseException)]
        assert all(isinstance(one, ApiError) and one.status in (404, 409) for one in refusals), refusals
        for one in left:
            if one.source_id is None:
                await client.delete(one.id, cascade=True)
        assert await client.instances() == []
    assert embedded.processes() == []


async def test_a_cascade_that_is_cut_off_by_a_killed_supervisor_is_gone_on_with(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        await client.fan_out("source", FanOutRequest(count=6))
        deletion = asyncio.create_task(client.delete("source", cascade=True))
        await until(lambda host: len(host.instances) < 7, client)
        os.kill(running.process.pid, 9)
        await asyncio.wait((deletion,))
        assert deletion.exception() is not None or deletion.result() is None
        await running.end()
    async with supervisor(embedded) as running:
        plan: DeletionPlan = await running.client.deletion_plan("source", cascade=True)
        assert plan.deletions[-1].name == "source"
        assert len(plan.deletions) < 7
        await running.client.delete("source", cascade=True)
    assert embedded.processes() == []
