"""Hot pages over the supervisor: who records, who is prefetched what and when, and what the list is worth."""

import asyncio
import os
import shutil
import signal

import pytest

from forktui.client.api import SupervisorClient
from supervisor.guests.pagewalker import HOT_BASE, PAGE_SIZE
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest, HostSnapshot, Instance, Template
from supervisor.uffd.hypeman_hot_pages import RegionPage
from tests.harness.hypeman_hot_pages import hpl1
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, guest, sample, supervisor, until
from tests.harness.verified_guests import standby_source

HOT_MIB = 4
HOT_PAGES = HOT_MIB * (1 << 20) // PAGE_SIZE
LATE_PAGES = 2


async def fork(client: SupervisorClient, name: str, **options: object) -> Instance:
    shared = {"name": name, "share_memory": True, "target_state": "Running", **options}
    return await client.fork("source", ForkRequest.model_validate(shared))


async def recorded(client: SupervisorClient) -> Template:
    """Return the template once it has a list and nobody records."""
    host = await until(lambda host: any(t.recorded_pages and not t.recording_fork for t in host.templates), client)
    return host.templates[0]


async def walked(client: SupervisorClient, *names: str) -> HostSnapshot:
    """Return the host once these forks have verified their memory, none of it wrong, and were sampled after that."""
    done = await until(
        lambda host: all(guest(host, name).restored and guest(host, name).passes for name in names), client
    )
    assert [guest(done, name).corrupt for name in names] == [None] * len(names)
    return await until(lambda host: all(sample(host, name).present_pages >= HOT_PAGES for name in names), client)


async def test_forks_record_when_they_are_to_and_are_prefetched_as_they_are_to(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        never = await fork(client, "never", record="off")
        assert not never.recording
        host = await walked(client, "never")
        assert (sample(host, "never").prefetched_pages, host.templates[0].recorded_pages) == (0, 0)

        # One that does not run records nothing, and is in nobody's way.
        asleep = await fork(client, "asleep", target_state="Standby")
        assert not asleep.recording
        first = await fork(client, "first")
        assert first.recording
        assert [phase.name for phase in first.phases] == ["prepare", "spawn", "load", "prefetch"]
        list_of_first = await recorded(client)
        assert list_of_first.recorded_pages >= HOT_PAGES
        host = await walked(client, "first")
        one = sample(host, "first")
        assert one.prefetched_pages == 0
        # On a busy machine the last of its walks may touch a page after the quiet that ends a recording.
        assert list_of_first.recorded_pages <= one.faults <= list_of_first.recorded_pages + LATE_PAGES

        second = await fork(client, "second")
        assert not second.recording
        assert second.phases[-1].name == "resume"
        concurrent = await fork(client, "concurrent", prefetch="concurrent")
        assert [phase.name for phase in concurrent.phases] == ["prepare", "spawn", "load", "prefetch"]
        await fork(client, "off", prefetch="off")
        host = await walked(client, "second", "concurrent", "off")
        assert sample(host, "second").prefetched_pages >= HOT_PAGES
        assert sample(host, "second").residual_faults <= HOT_PAGES // 100
        assert sample(host, "concurrent").prefetched_pages > 0
        assert (sample(host, "off").prefetched_pages, sample(host, "off").faults > 0) == (0, True)

        again = await fork(client, "again", record="on")
        assert again.phases[-1].name == "prefetch"
        host = await walked(client, "again")
        assert sample(host, "again").prefetched_pages == 0
        assert sample(host, "again").faults >= HOT_PAGES
        await client.delete("source", cascade=True)


async def test_whether_a_fork_made_in_standby_records_is_decided_when_it_is_restored(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        made = await client.fan_out("source", FanOutRequest(count=4, target_state="Standby", name_prefix="asleep"))
        assert [child.error for child in made.children] == [None] * 4
        await fork(client, "always", target_state="Standby", record="on")
        await fork(client, "never", target_state="Standby", record="off")
        assert not (await client.restore("never")).recording
        at_once = await asyncio.gather(client.restore("asleep-1"), client.restore("asleep-2"))
        assert sorted(one.recording for one in at_once) == [False, True]
        template = await recorded(client)
        for name in ("asleep-3", "asleep-4"):
            restored = await client.restore(name)
            assert (restored.recording, restored.phases[-1].name) == (False, "resume")
        assert (await client.restore("always")).recording
        names = [child.name for child in made.children]
        host = await walked(client, "never", "always", *names)
        for name in ("never", "always", *names[:2]):
            assert sample(host, name).prefetched_pages == 0
        for name in names[2:]:
            assert 0.99 * template.recorded_pages <= sample(host, name).prefetched_pages <= template.recorded_pages
            assert sample(host, name).residual_faults <= HOT_PAGES // 100
        await client.delete("source", cascade=True)


async def test_a_fork_is_the_one_that_records_until_the_list_is_there(embedded: Home) -> None:
    """Between them another would be loaded as if there were none to come."""
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        told: list[tuple[bool, bool]] = []

        def listed(host: HostSnapshot) -> bool:
            told.extend(
                (template.recording_fork is not None, template.recorded_pages > 0) for template in host.templates
            )
            return told[-1:] == [(False, True)]

        async with asyncio.TaskGroup() as group:
            group.create_task(until(listed, client))
            await fork(client, "first")
        assert (False, False) not in told[told.index((True, False)) :]
        await client.delete("source", cascade=True)


async def test_a_fork_that_could_not_be_restored_is_in_no_others_way_to_record(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        broken = await fork(client, "broken", target_state="Standby")
        await fork(client, "whole", target_state="Standby")
        in_the_way = embedded.run / f"{broken.id}.sock"
        in_the_way.mkdir()
        assert (await refused(client.restore("broken"))).code == "vmm_failed"
        in_the_way.rmdir()
        assert not (await client.instance("broken")).recording
        assert (await client.restore("whole")).recording


async def test_a_warm_up_fork_that_ends_early_leaves_the_recording_to_the_next(embedded: Home) -> None:
    # Long enough for the first one to be ended in.
    embedded.options = ("--record-quiet-seconds", "3")
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        first = await fork(client, "first")
        assert first.recording
        assert first.vmm_pid is not None
        await until(lambda host: sample(host, "first").faults > 0, client)
        os.kill(first.vmm_pid, signal.SIGKILL)
        host = await until(lambda host: not any(one.recording for one in host.instances), client)
        assert host.templates[0].recorded_pages == 0
        second = await fork(client, "second")
        assert second.recording
        assert (await recorded(client)).recorded_pages >= HOT_PAGES
        assert "a recording was cut off after " in running.log.read_text()
        third = await fork(client, "third")
        assert not third.recording
        host = await walked(client, "second", "third")
        assert sample(host, "third").prefetched_pages >= HOT_PAGES
        await client.delete("source", cascade=True)


async def test_a_template_tells_what_share_of_its_list_its_forks_want(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        await fork(client, "first")
        template = await recorded(client)
        assert (template.sampled_pages, template.precision, template.wasted_bytes) == (0, None, None)
        result = await client.fan_out("source", FanOutRequest(count=8))
        names = [child.name for child in result.children]
        await walked(client, *names)
        for name in names:
            await client.delete(name)
        host = await until(lambda host: host.templates[0].precision is not None, client)
        (template,) = host.templates
        assert template.sampled_pages == template.recorded_pages // 251
        # Every fork walks all that was recorded.
        assert (template.precision, template.wasted_bytes) == (1.0, 0)
        await running.end()
    async with supervisor(embedded) as running:
        (found,) = (await running.client.snapshot()).templates
        assert (found.sampled_pages, found.precision) == (template.sampled_pages, 1.0)
        await running.client.delete("source", cascade=True)


@pytest.mark.parametrize("kind", ["hypeman", "damaged"])
async def test_a_list_that_is_dropped_beside_a_snapshot_is_prefetched_or_refused_with_its_reason(
    embedded: Home, kind: str
) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", f"hot_mib={HOT_MIB}")
        made, image = embedded.data / "instances" / (await client.instance("source")).id, embedded.data / "images/snap"
        image.mkdir(parents=True)
        shutil.copy(next(made.glob("state.*")), image / "state")
        shutil.copy(next(made.glob("mem.*")), image / "mem")
        pages = [RegionPage(0, HOT_BASE + number * PAGE_SIZE) for number in range(100)]
        (image / "hot_pages").write_bytes(hpl1(pages)[: None if kind == "hypeman" else 60])
        await client.delete("source")

        await client.create(CreateRequest(name="source", image="snap"))
        await fork(client, "fork", record="off")
        if kind == "hypeman":
            await until(lambda host: sample(host, "fork").prefetched_pages == 100, client)
            assert (await recorded(client)).recorded_pages == 100
        else:
            await until(lambda host: any(one.name == "fork" for one in host.instances), client)
            assert "is refused: it tells of 100 pages" in running.log.read_text()
        await until(lambda host: sample(host, "fork").faults > 0, client)
        assert (image / "hot_pages").read_bytes().startswith(b"HPL1")
        await client.delete("source", cascade=True)
