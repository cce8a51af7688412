"""What a fork touches first is recorded, and later forks have it before they ask; a sample tells what that is worth."""

import os

import pytest

from supervisor.uffd.handle import Attached, Policy, Recorded, RecordingDropped, Sampled
from supervisor.uffd.hypeman_hot_pages import RegionPage
from supervisor.uffd.page_map import PREFETCHED
from supervisor.uffd.sampling import STRATUM_PAGES
from tests.harness.fork_in_miniature import TIMEOUT
from tests.harness.hypeman_hot_pages import hpl1
from tests.harness.page_server_template import PAGE, PAGES, SIZE, Template

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_recorded_pages_are_prefetched_before_resume(template: Template) -> None:
    server = await template.serve()
    first = await template.fork(server, "first", record=True)
    assert await server.served("first") == Attached(0, 0, 0.0)
    await first.do("walk", 1000, 1300)
    await first.do("walk", 0, 50)
    recorded = await template.event(lambda event: isinstance(event, Recorded))
    assert recorded == Recorded("first", 350, 2, 350 * PAGE)
    assert (await template.counters("first")).faults == 350

    second = await template.fork(server, "second")
    attached = await server.served("second")
    assert (attached.prefetched_pages, attached.prefetched_bytes) == (350, 350 * PAGE)
    assert 0 < attached.prefetch_seconds < TIMEOUT
    await second.do("walk", 1000, 1300)
    await second.do("walk", 0, 50)
    counters = await template.counters("second")
    assert (counters.faults, counters.residual_faults, counters.prefetched_pages) == (0, 0, 350)
    await second.do("walk", 0, PAGES)
    counters = await template.counters("second")
    assert counters.prefetch_finished
    assert counters.residual_faults == counters.faults > 0

    status = await server.status()
    assert (status.forks, status.recording) == (("first", "second"), ())
    assert (status.hot_pages, status.hot_runs, status.hot_pages_refused) == (350, 2, "")
    await server.stop()
    again = await template.serve()
    assert (await again.status()).hot_pages == 350


async def test_some_forks_have_a_sample_held_back_that_tells_what_the_list_is_worth(template: Template) -> None:
    policy = Policy(sample_every=2, fault_around_pages=1)
    server = await template.serve(policy)
    first = await template.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await template.event(lambda event: isinstance(event, Recorded))
    status = await server.status()
    assert (status.held_back_pages, status.recordings) == (0, 1)
    held_back = PAGES // STRATUM_PAGES
    for fork_id in ("passed over", "never run"):
        await template.fork(server, fork_id)
        await server.served(fork_id)
    await server.release("never run")
    status = await server.status()
    assert (status.held_back_pages, status.held_back_touched) == (0, 0), "it says nothing of the list"
    for fork_id, walked, prefetched in (("whole", PAGES, PAGES), ("half", 4 * STRATUM_PAGES, PAGES - held_back)):
        fork = await template.fork(server, fork_id)
        assert (await server.served(fork_id)).prefetched_pages == prefetched
        await fork.do("walk", 0, walked)
    # Half of the strata, and so half of what was held back.
    assert (await template.counters("half")).residual_faults == held_back // 2
    await server.release("half")
    status = await server.status()
    assert (status.held_back_pages, status.held_back_touched) == (held_back, held_back // 2)
    await template.event(lambda event: event == Sampled(held_back, held_back // 2))
    await server.stop()
    again = await template.serve(policy)
    status = await again.status()
    assert (status.held_back_pages, status.held_back_touched) == (held_back, held_back // 2)


async def test_a_sample_is_judged_after_its_time_too(template: Template) -> None:
    server = await template.serve(Policy(sample_every=1, sample_seconds=0.05))
    first = await template.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await template.event(lambda event: isinstance(event, Recorded))
    await template.fork(server, "idle")
    await server.served("idle")
    await template.event(lambda event: event == Sampled(PAGES // STRATUM_PAGES, 0))


async def test_hypemans_list_is_prefetched(template: Template) -> None:
    template.hot_pages.write_bytes(hpl1([RegionPage(0, 100 * PAGE), RegionPage(1, 0), RegionPage(1, PAGE)]))
    server = await template.serve()
    fork = await template.fork(server, "one", regions=(SIZE // 2, SIZE // 2))
    assert (await server.served("one")).prefetched_pages == 3
    assert await template.event(lambda event: isinstance(event, Recorded)) == Recorded("one", 3, 2, 3 * PAGE)
    states = await template.states("one")
    assert [page for page, state in enumerate(states) if state == PREFETCHED] == [100, 1024, 1025]
    await fork.do("walk", 0, PAGES)


async def test_concurrent_prefetch_does_not_hold_the_guest(template: Template) -> None:
    server = await template.serve()
    first = await template.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await template.event(lambda event: isinstance(event, Recorded))
    second = await template.fork(server, "second", prefetch="concurrent")
    assert await server.served("second") == Attached(0, 0, 0.0)
    await second.do("storm", 2, 3)
    counters = await template.counters("second")
    assert counters.present_pages == PAGES
    assert counters.prefetched_pages + counters.faults + counters.fault_around_pages >= PAGES

    third = await template.fork(server, "third", prefetch="off")
    await server.served("third")
    await third.do("walk", 0, 1)
    assert (await template.counters("third")).prefetched_pages == 0


async def test_recording_is_bounded(template: Template) -> None:
    server = await template.serve(Policy(record_quiet_seconds=60, record_seconds=60, record_pages=100))
    fork = await template.fork(server, "full", record=True)
    await fork.do("walk", 0, 300)
    assert await template.event(lambda event: isinstance(event, Recorded)) == Recorded("full", 100, 1, 100 * PAGE)
    other = await template.fork(server, "other", record=True)
    await other.do("walk", 500, 520)
    assert (await server.status()).recording == ("other",)
    await other.do("walk", 520, 700)
    # It is added to the first one, which is as long already as a list may be.
    await template.event(lambda event: event == Recorded("other", 100, 1, 100 * PAGE, recordings=2))


async def test_a_recording_is_kept_when_its_fork_is_released_after_the_quiet_time(template: Template) -> None:
    # Shorter than so many faults take, one page each.
    server = await template.serve(Policy(record_quiet_seconds=0.005, record_seconds=60))
    fork = await template.fork(server, "one", record=True)
    await fork.do("walk", 0, PAGES)
    await server.release("one")
    await template.event(lambda event: isinstance(event, Recorded))


@pytest.mark.parametrize("end", ["killed", "released", "populated", "stopped"])
async def test_a_recording_that_is_cut_off_is_told_and_the_next_one_is_the_first(template: Template, end: str) -> None:
    policy = Policy(record_quiet_seconds=60, record_seconds=60, record_pages=100)
    server = await template.serve(policy)
    fork = await template.fork(server, "early", record=True)
    await server.served("early")
    await fork.do("walk", 500, 520)
    match end:
        case "killed":
            await fork.kill()
        case "released":
            await server.release("early")
        case "populated":
            await server.populate("early")
        case "stopped":
            await server.stop()
    if end != "stopped":
        await template.event(lambda event: event == RecordingDropped("early", 20))
        status = await server.status()
        assert (status.recording, status.hot_pages, status.recordings) == ((), 0, 0)
    assert "RecordingDropped fork_id=early pages=20" in (template.directory / "log").read_text()
    assert not template.hot_pages.exists()
    if end == "stopped":
        server = await template.serve(policy)
    template.events.clear()
    fork = await template.fork(server, "whole", record=True)
    await fork.do("walk", 0, 300)
    assert await template.event(lambda event: isinstance(event, Recorded)) == Recorded("whole", 100, 1, 100 * PAGE)


async def test_hot_pages_of_another_image_are_refused(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, record=True)
    await fork.do("walk", 0, 10)
    await template.event(lambda event: isinstance(event, Recorded))
    await server.stop()
    os.utime(template.layers[0], ns=(1, 1))
    again = await template.serve()
    status = await again.status()
    assert status.hot_pages == 0
    assert "another memory image" in status.hot_pages_refused
