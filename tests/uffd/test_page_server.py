"""The page server as a process, driven through its handle, serving processes with a real userfaultfd."""

import asyncio
import json
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.errors import PageServerError
from supervisor.uffd.handle import (
    Attached,
    Failing,
    Gone,
    PageServer,
    PageServerEvent,
    Policy,
    Recorded,
    RecordingDropped,
    Refused,
    Sampled,
)
from supervisor.uffd.hypeman_hot_pages import RegionPage
from supervisor.uffd.page_map import ABSENT, FAULT_AROUND, FAULTED, PREFETCHED, REMOVED, ZERO
from supervisor.uffd.sampling import STRATUM_PAGES
from tests.harness.fork_in_miniature import TIMEOUT
from tests.harness.hypeman_hot_pages import hpl1
from tests.harness.page_server_template import MIB, PAGE, PAGES, SIZE, Template, random_pages

pytestmark = pytest.mark.usefixtures("userfaultfd")


@pytest_asyncio.fixture
async def template(run_dir: Path) -> AsyncIterator[Template]:
    """A template in a directory of its own; its processes end with the test."""
    async with AsyncExitStack() as stack:
        yield Template(run_dir, stack)


@pytest.fixture
def full(template: Template) -> Template:
    """One whose image is a single layer without holes."""
    template.write({0: random_pages(PAGES, 1)})
    return template


async def test_one_page_a_fault(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=1))
    fork = await full.fork(server, "one")
    assert await server.served("one") == Attached(0, 0, 0.0)
    await fork.do("walk", 0, PAGES)
    counters = await full.counters("one")
    assert counters.faults == counters.present_pages == sum(counters.latency_counts) == PAGES
    assert counters.copied_bytes == SIZE
    assert (counters.fault_around_pages, counters.copy_errors, counters.oldest_fault_age_seconds) == (0, 0, 0.0)
    assert counters.fault_seconds > 0
    assert (await full.states("one")) == bytes([FAULTED]) * PAGES


async def test_fault_around_answers_with_the_absent_run_of_the_window(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=64))
    fork = await full.fork(server, "one")
    await fork.do("walk", 100, 101)
    await fork.do("walk", 0, PAGES)
    counters = await full.counters("one")
    assert counters.faults == PAGES // 64
    assert counters.fault_around_pages == PAGES - PAGES // 64
    states = await full.states("one")
    assert states[64:128] == bytes([FAULT_AROUND] * 36 + [FAULTED] + [FAULT_AROUND] * 27)


async def test_a_window_adapts_to_a_walk_and_to_scattered_faults_unless_it_is_fixed(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=64))
    scattered = await full.fork(server, "scattered")
    for page in range(1000, PAGES, 100):
        await scattered.do("walk", page, page + 1)
    assert (await full.counters("scattered")).present_pages < 150
    await scattered.do("walk", 0, 900)
    assert (await full.counters("scattered")).faults < 11 + 900 // 64 + 8
    await server.stop()
    server = await full.serve(Policy(fault_around_pages=64, fault_around="fixed"))
    scattered = await full.fork(server, "fixed")
    for page in range(1000, PAGES, 100):
        await scattered.do("walk", page, page + 1)
    assert (await full.counters("fixed")).present_pages == 11 * 64


async def test_regions_are_told_apart(full: Template) -> None:
    server = await full.serve()
    third = SIZE // 4
    fork = await full.fork(server, "one", regions=(third, SIZE - 3 * third, 2 * third))
    await fork.do("storm", 2, 7)
    assert (await full.counters("one")).present_pages == PAGES


async def test_pages_of_no_layer_are_zero_and_copy_nothing(template: Template) -> None:
    template.write({10: random_pages(5, 1)}, {12: random_pages(20, 2), 1000: random_pages(3, 3)})
    server = await template.serve(Policy(fault_around_pages=16))
    fork = await template.fork(server, "one")
    await fork.do("storm", 3, 1)
    counters = await template.counters("one")
    data = [*range(10, 32), *range(1000, 1003)]
    assert counters.copied_bytes == len(data) * PAGE
    assert counters.zero_pages == PAGES - len(data)
    assert [page for page, state in enumerate(await template.states("one")) if state != ZERO] == data
    await fork.do("write", 40, 44, expect="written")
    await fork.do("walk", 44, PAGES)


async def test_chain_of_layers_under_every_window(template: Template) -> None:
    dice = random.Random(5)
    layers = []
    for number in range(5):
        starts = sorted(dice.sample(range(0, PAGES - 8), 60))
        layers.append({start: random_pages(dice.randrange(1, 8), 1000 * number + start) for start in starts})
    template.write(*layers)
    for window in (1, 7, 64):
        server = await template.serve(Policy(fault_around_pages=window))
        fork = await template.fork(server, f"window{window}")
        await fork.do("storm", 4, window)
        await server.stop()


async def test_recorded_pages_are_prefetched_before_resume(full: Template) -> None:
    server = await full.serve(Policy(record_quiet_seconds=0.05))
    first = await full.fork(server, "first", record=True)
    assert await server.served("first") == Attached(0, 0, 0.0)
    await first.do("walk", 1000, 1300)
    await first.do("walk", 0, 50)
    recorded = await full.event(lambda event: isinstance(event, Recorded))
    assert recorded == Recorded("first", 350, 2, 350 * PAGE)
    assert (await full.counters("first")).faults == 350

    second = await full.fork(server, "second")
    attached = await server.served("second")
    assert (attached.prefetched_pages, attached.prefetched_bytes) == (350, 350 * PAGE)
    assert 0 < attached.prefetch_seconds < TIMEOUT
    await second.do("walk", 1000, 1300)
    await second.do("walk", 0, 50)
    counters = await full.counters("second")
    assert (counters.faults, counters.residual_faults, counters.prefetched_pages) == (0, 0, 350)
    await second.do("walk", 0, PAGES)
    counters = await full.counters("second")
    assert counters.prefetch_finished
    assert counters.residual_faults == counters.faults > 0

    status = await server.status()
    assert (status.forks, status.recording) == (("first", "second"), ())
    assert (status.hot_pages, status.hot_runs, status.hot_pages_refused) == (350, 2, "")
    await server.stop()
    again = await full.serve()
    assert (await again.status()).hot_pages == 350


async def test_some_forks_have_a_sample_held_back_that_tells_what_the_list_is_worth(full: Template) -> None:
    policy = Policy(record_quiet_seconds=0.05, sample_every=2, fault_around_pages=1)
    server = await full.serve(policy)
    first = await full.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await full.event(lambda event: isinstance(event, Recorded))
    status = await server.status()
    assert (status.held_back_pages, status.recordings) == (0, 1)
    held_back = PAGES // STRATUM_PAGES
    for fork_id in ("passed over", "never run"):
        await full.fork(server, fork_id)
        await server.served(fork_id)
    await server.release("never run")
    status = await server.status()
    assert (status.held_back_pages, status.held_back_touched) == (0, 0), "it says nothing of the list"
    for fork_id, walked, prefetched in (("whole", PAGES, PAGES), ("half", 4 * STRATUM_PAGES, PAGES - held_back)):
        fork = await full.fork(server, fork_id)
        assert (await server.served(fork_id)).prefetched_pages == prefetched
        await fork.do("walk", 0, walked)
    # Half of the strata, and so half of what was held back.
    assert (await full.counters("half")).residual_faults == held_back // 2
    await server.release("half")
    status = await server.status()
    assert (status.held_back_pages, status.held_back_touched) == (held_back, held_back // 2)
    await full.event(lambda event: event == Sampled(held_back, held_back // 2))
    await server.stop()
    again = await full.serve(policy)
    status = await again.status()
    assert (status.held_back_pages, status.held_back_touched) == (held_back, held_back // 2)


async def test_a_sample_is_judged_after_its_time_too(full: Template) -> None:
    server = await full.serve(Policy(record_quiet_seconds=0.05, sample_every=1, sample_seconds=0.05))
    first = await full.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await full.event(lambda event: isinstance(event, Recorded))
    await full.fork(server, "idle")
    await server.served("idle")
    await full.event(lambda event: event == Sampled(PAGES // STRATUM_PAGES, 0))


async def test_hypemans_list_is_prefetched(full: Template) -> None:
    full.hot_pages.write_bytes(hpl1([RegionPage(0, 100 * PAGE), RegionPage(1, 0), RegionPage(1, PAGE)]))
    server = await full.serve()
    fork = await full.fork(server, "one", regions=(SIZE // 2, SIZE // 2))
    assert (await server.served("one")).prefetched_pages == 3
    assert await full.event(lambda event: isinstance(event, Recorded)) == Recorded("one", 3, 2, 3 * PAGE)
    states = await full.states("one")
    assert [page for page, state in enumerate(states) if state == PREFETCHED] == [100, 1024, 1025]
    await fork.do("walk", 0, PAGES)


async def test_concurrent_prefetch_does_not_hold_the_guest(full: Template) -> None:
    server = await full.serve(Policy(record_quiet_seconds=0.05))
    first = await full.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await full.event(lambda event: isinstance(event, Recorded))
    second = await full.fork(server, "second", prefetch="concurrent")
    assert await server.served("second") == Attached(0, 0, 0.0)
    await second.do("storm", 2, 3)
    counters = await full.counters("second")
    assert counters.present_pages == PAGES
    assert counters.prefetched_pages + counters.faults + counters.fault_around_pages >= PAGES

    third = await full.fork(server, "third", prefetch="off")
    await server.served("third")
    await third.do("walk", 0, 1)
    assert (await full.counters("third")).prefetched_pages == 0


async def test_recording_is_bounded(full: Template) -> None:
    server = await full.serve(Policy(record_quiet_seconds=60, record_seconds=60, record_pages=100))
    fork = await full.fork(server, "full", record=True)
    await fork.do("walk", 0, 300)
    assert await full.event(lambda event: isinstance(event, Recorded)) == Recorded("full", 100, 1, 100 * PAGE)
    other = await full.fork(server, "other", record=True)
    await other.do("walk", 500, 520)
    assert (await server.status()).recording == ("other",)
    await other.do("walk", 520, 700)
    # It is added to the first one, which is as long already as a list may be.
    await full.event(lambda event: event == Recorded("other", 100, 1, 100 * PAGE, recordings=2))


async def test_a_recording_is_kept_when_its_fork_is_released_after_the_quiet_time(full: Template) -> None:
    # Shorter than so many faults take, one page each.
    server = await full.serve(Policy(record_quiet_seconds=0.005, record_seconds=60))
    fork = await full.fork(server, "one", record=True)
    await fork.do("walk", 0, PAGES)
    await server.release("one")
    await full.event(lambda event: isinstance(event, Recorded))


@pytest.mark.parametrize("end", ["killed", "released", "populated", "stopped"])
async def test_a_recording_that_is_cut_off_is_told_and_the_next_one_is_the_first(full: Template, end: str) -> None:
    policy = Policy(record_quiet_seconds=60, record_seconds=60, record_pages=100)
    server = await full.serve(policy)
    fork = await full.fork(server, "early", record=True)
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
        await full.event(lambda event: event == RecordingDropped("early", 20))
        status = await server.status()
        assert (status.recording, status.hot_pages, status.recordings) == ((), 0, 0)
    assert "RecordingDropped fork_id=early pages=20" in (full.directory / "log").read_text()
    assert not full.hot_pages.exists()
    if end == "stopped":
        server = await full.serve(policy)
    full.events.clear()
    fork = await full.fork(server, "whole", record=True)
    await fork.do("walk", 0, 300)
    assert await full.event(lambda event: isinstance(event, Recorded)) == Recorded("whole", 100, 1, 100 * PAGE)


async def test_hot_pages_of_another_image_are_refused(full: Template) -> None:
    server = await full.serve(Policy(record_quiet_seconds=0.05))
    fork = await full.fork(server, record=True)
    await fork.do("walk", 0, 10)
    await full.event(lambda event: isinstance(event, Recorded))
    await server.stop()
    os.utime(full.layers[0], ns=(1, 1))
    again = await full.serve()
    status = await again.status()
    assert status.hot_pages == 0
    assert "another memory image" in status.hot_pages_refused


async def test_removed_pages_are_zero_and_never_the_files_again(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=16))
    fork = await full.fork(server, "one")
    await fork.do("walk", 0, 40)
    await fork.do("remove", 8, 24, expect="removed")
    assert (await full.states("one"))[8:24] == bytes([REMOVED]) * 16
    await fork.do("walk", 0, 8)
    await fork.do("zeros", 8, 20)
    await fork.do("walk", 24, PAGES)
    await fork.do("remove", 1000, 1010, expect="removed")
    await fork.do("zeros", 1000, 1010)
    counters = await full.counters("one")
    assert (counters.removed_pages, counters.zero_pages) == (26, 22)
    assert counters.present_pages == PAGES - 4


async def test_removal_before_the_first_touch_wins_over_fault_around_and_prefetch(full: Template) -> None:
    server = await full.serve(Policy(record_quiet_seconds=0.05))
    first = await full.fork(server, "first", record=True)
    await first.do("walk", 0, 600)
    await full.event(lambda event: isinstance(event, Recorded))
    second = await full.fork(server, "second", prefetch="off")
    await second.do("remove", 100, 200, expect="removed")
    await second.do("walk", 96, 100)
    await second.do("zeros", 100, 200)
    await second.do("walk", 200, 600)


async def test_storm_of_faults_and_removals_loses_no_fault(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=4))
    fork = await full.fork(server, "one")
    await fork.do("churn", 512, 768, 40)
    counters = await full.counters("one")
    assert counters.removed_pages == 40 * 256
    assert (counters.copy_errors, counters.oldest_fault_age_seconds) == (0, 0.0)


async def test_user_mode_only_userfaultfd_is_served(full: Template) -> None:
    server = await full.serve()
    fork = await full.fork(server, "one", user_mode_only=True)
    await fork.do("storm", 2, 1)
    assert (await full.counters("one")).present_pages == PAGES


async def test_only_the_forks_own_vmm_may_connect(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=1))
    good = await full.fork(server, "good")
    good.tell("storm", 2, 1)
    fork = await full.fork(server, "one", load=False)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(full.directory / "one.uffd"))
        refused = await full.event(lambda event: isinstance(event, Refused))
        assert refused == Refused("one", f"pid {os.getpid()} connected, and only pid {fork.pid} may")
        assert await asyncio.to_thread(stranger.recv, 1) == b""
    await good.answer("0")
    await fork.do("load", expect="sent")
    await server.served("one")
    await fork.do("walk", 0, PAGES)


GARBAGE: dict[str, tuple[Callable[[list[dict[str, Any]]], str], tuple[str, ...], str]] = {
    "no JSON": (lambda _: "GET / HTTP/1.1\r\n", ("uffd",), "not a JSON array"),
    "cut JSON": (lambda _: "[{]", ("uffd",), "not JSON"),
    "an object": (lambda _: "{}", ("uffd",), "not a JSON array"),
    "nothing in it": (lambda _: "[]", ("uffd",), "not a JSON array of mappings"),
    "nesting": (lambda _: "[" * 30000 + "]" * 30000, ("uffd",), "not JSON"),
    "too long": (lambda _: "[" + " " * 70000, ("uffd",), "longer than 65536 bytes"),
    "10 MiB": (lambda mappings: json.dumps(mappings * (10 * MIB // 80)), ("uffd",), "longer than 65536 bytes"),
    "no descriptor": (json.dumps, (), "without a userfaultfd"),
    "two descriptors": (json.dumps, ("uffd", "uffd"), "more than one descriptor"),
    "many descriptors": (json.dumps, ("/dev/null",) * 40, "more than one descriptor"),
    "no userfaultfd": (json.dumps, ("/dev/null",), "/dev/null and no userfaultfd"),
    "a userfaultfd without features": (json.dumps, ("bare uffd",), "does not take its mappings"),
    "overlap of addresses": (
        lambda mappings: json.dumps(
            [{**mappings[0], "size": SIZE // 2}, {**mappings[0], "size": SIZE // 2, "offset": SIZE // 2}]
        ),
        ("uffd",),
        "overlaps the one before it",
    ),
    "overlap": (lambda mappings: json.dumps(mappings * 2), ("uffd",), "overlaps"),
    "half of it": (lambda mappings: json.dumps([{**mappings[0], "size": SIZE // 2}]), ("uffd",), f"image {SIZE}"),
    "twice of it": (lambda mappings: json.dumps([{**mappings[0], "size": 2 * SIZE}]), ("uffd",), f"image {SIZE}"),
    "another page size": (
        lambda mappings: json.dumps([{**mappings[0], "page_size": 2 << 20}]),
        ("uffd",),
        "page_size is 2097152 and the template's 4096",
    ),
    "overflow": (
        lambda mappings: json.dumps([{**mappings[0], "base_host_virt_addr": (1 << 64) - PAGE}]),
        ("uffd",),
        "overflows the address space",
    ),
    "kernel's range": (
        lambda mappings: json.dumps([{**mappings[0], "base_host_virt_addr": (1 << 64) - SIZE}]),
        ("uffd",),
        "does not take its mappings",
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_for_a_handshake_is_refused_and_nobody_else_notices(full: Template, kind: str) -> None:
    make, descriptors, reason = GARBAGE[kind]
    server = await full.serve(Policy(fault_around_pages=1))
    good = await full.fork(server, "good")
    bad = await full.fork(server, "bad", load=False)
    mappings = [
        {"base_host_virt_addr": 1 << 30, "size": SIZE, "offset": 0, "page_size": PAGE},
    ]
    good.tell("storm", 2, 1)
    bad.tell("send", make(mappings), *descriptors)
    with pytest.raises(
        PageServerError, match=r"fork bad is not served: the handshake of its VMM was refused"
    ) as raised:
        await server.served("bad")
    assert reason in raised.value.message
    assert isinstance(await full.event(lambda event: isinstance(event, Refused)), Refused)
    await good.answer("0")
    assert (await server.status()).forks == ("good",)
    assert not (full.directory / "bad.uffd").exists()


async def test_silence_and_a_hang_up_are_no_handshake(full: Template) -> None:
    server = await full.serve(Policy(handshake_seconds=0.5, fault_around_pages=1))
    good = await full.fork(server, "good")
    good.tell("storm", 2, 1)
    await full.fork(server, "silent", load=False)
    hesitant = await full.fork(server, "hesitant", load=False)
    hesitant.tell("send", '[{"size":', "uffd")
    closed = await full.fork(server, "closed", load=False)
    await closed.do("send", "[", "uffd", expect="sent")
    await closed.do("hang_up", expect="closed")
    for fork_id, reason in (("closed", "closed before"), ("silent", "within 0.5 s"), ("hesitant", "within 0.5 s")):
        with pytest.raises(PageServerError, match=reason):
            await server.served(fork_id)
    await good.answer("0")
    assert (await server.status()).forks == ("good",)


async def test_a_fork_that_dies_in_the_storm_leaves_the_others_served(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=1))
    forks = [await full.fork(server, f"fork{number}") for number in range(3)]
    for number, fork in enumerate(forks):
        fork.tell("storm", 4, number)
    await forks[1].kill()
    gone = await full.event(lambda event: isinstance(event, Gone))
    assert isinstance(gone, Gone)
    assert gone.fork_id == "fork1"
    await forks[0].answer("0")
    await forks[2].answer("0")
    assert (await server.status()).forks == ("fork0", "fork2")
    assert (await full.counters("fork2")).present_pages == PAGES
    assert full.map("fork1").exists()
    await server.release("fork1")
    with pytest.raises(PageServerError, match="fork fork1 is not attached"):
        await server.served("fork1")


async def test_a_vmm_that_dies_before_its_handshake_is_told_at_once(full: Template) -> None:
    server = await full.serve()
    fork = await full.fork(server, "one", load=False)
    await fork.kill()
    with pytest.raises(PageServerError, match=f"its VMM, pid {fork.pid}, has exited"):
        await server.served("one")


async def test_a_fork_whose_vmm_has_gone_may_be_attached_again_with_another(full: Template) -> None:
    server = await full.serve()
    before = await full.fork(server, "one")
    await server.served("one")
    await before.kill()
    assert isinstance(await full.event(lambda event: isinstance(event, Gone)), Gone)
    after = await full.fork(server, "one")
    await server.served("one")
    await after.do("walk", 0, PAGES)
    assert (await server.status()).forks == ("one",)


async def test_it_outlives_its_supervisors_connection_and_is_found_again(full: Template) -> None:
    server = await full.serve()
    fork = await full.fork(server, "one")
    await server.served("one")
    fork.tell("storm", 2, 1)
    await server.disconnect()
    with pytest.raises(PageServerError, match="is not connected"):
        await server.status()
    await fork.answer("0")
    found: list[PageServerEvent] = []
    again = await PageServer.connect(
        template_id="template",
        control=full.control,
        pid=server.pid,
        start_time=server.start_time,
        on_event=found.append,
    )
    try:
        assert (await again.status()).forks == ("one",)
        other = await full.fork(again, "two")
        await again.served("two")
        await other.do("walk", 0, PAGES)
        with pytest.raises(PageServerError, match="attached already"):
            await full.fork(again, "two")
    finally:
        await again.stop()
    assert await again.exited == 0
    assert not full.control.exists()


async def test_connect_refuses_whom_it_was_not_told_of(full: Template) -> None:
    server = await full.serve()
    known = {"control": full.control, "on_event": full.events.append}
    with pytest.raises(PageServerError, match="another process has its pid"):
        await PageServer.connect(
            template_id="template",
            pid=server.pid,
            start_time=server.start_time - 1,
            **known,  # type: ignore[arg-type]
        )
    with pytest.raises(PageServerError, match="serves template template"):
        await PageServer.connect(
            template_id="other",
            pid=server.pid,
            start_time=server.start_time,
            **known,  # type: ignore[arg-type]
        )


async def test_sigterm_ends_it_cleanly_and_sigkill_is_told(full: Template) -> None:
    server = await full.serve(Policy(record_pages=10))
    fork = await full.fork(server, "one", record=True)
    await fork.do("walk", 0, 10)
    os.kill(server.pid, signal.SIGTERM)
    assert await asyncio.wait_for(server.exited, TIMEOUT) == 0
    assert full.hot_pages.exists()
    assert not full.control.exists()
    again = await full.serve()
    await full.fork(again, "two", load=False)
    waiting = asyncio.create_task(again.served("two"))
    await again.status()
    os.kill(again.pid, signal.SIGKILL)
    with pytest.raises(PageServerError, match=r"has exited with -9|has closed its control connection"):
        await waiting
    assert await asyncio.wait_for(again.exited, TIMEOUT) == -signal.SIGKILL
    # What the dead one left is no obstacle.
    assert full.control.exists()
    await full.serve()


async def test_an_image_that_is_not_as_it_was_is_refused(full: Template) -> None:
    server = await full.serve()
    with full.layers[0].open("r+b") as file:
        file.truncate(SIZE - PAGE)
    with pytest.raises(PageServerError, match=f"mem.0 was truncated to {SIZE - PAGE} bytes"):
        await full.fork(server)
    with pytest.raises(PageServerError, match=r"did not start: layer .* it is truncated or of another VM"):
        await full.serve()
    full.layers[0].unlink()
    with pytest.raises(PageServerError, match=r"did not start: layer .* cannot be opened: No such file"):
        await full.serve()


async def test_a_page_that_cannot_be_provided_is_waited_for_and_never_wrong(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=8))
    fork = await full.fork(server, "one")
    content = full.layers[0].read_bytes()
    with full.layers[0].open("r+b") as file:
        file.truncate(1000 * PAGE)
    fork.tell("walk", 990, 1010)
    failing = await full.event(lambda event: isinstance(event, Failing))
    short = f"layer {full.layers[0]} was truncated to {1000 * PAGE} bytes under its page server"
    assert failing == Failing("one", f"a page cannot be provided: {short}")
    counters = await full.counters("one")
    assert counters.copy_errors > 0
    assert counters.oldest_fault_age_seconds > 0
    full.layers[0].write_bytes(content)
    await fork.answer("0")
    assert (await full.counters("one")).oldest_fault_age_seconds == 0


async def test_a_populated_fork_needs_no_page_server_any_more(template: Template) -> None:
    template.write({0: random_pages(700, 1), 1500: random_pages(100, 2)}, {600: random_pages(300, 3)})
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one", regions=(SIZE // 4, 3 * SIZE // 4))
    await fork.do("walk", 0, 10)
    await fork.do("remove", 4, 8, expect="removed")
    await fork.do("remove", 600, 650, expect="removed")
    await asyncio.gather(server.populate("one"), server.populate("one"))
    states = await template.states("one")
    assert states.count(ABSENT) == 0
    assert states[4:8] + states[600:650] == bytes([REMOVED]) * 54
    assert states[900:1500] == bytes([ZERO]) * 600, "what no layer has is the kernel's zero page, not a copy"
    counters = await template.counters("one")
    assert counters.present_pages == PAGES - 54
    assert (counters.prefetched_pages, counters.copy_errors) == (0, 0)
    await server.populate("one")
    server.kill()
    await server.exited
    await fork.do("walk", 8, 600)
    await fork.do("walk", 650, PAGES)
    await fork.do("zeros", 4, 8)
    await fork.do("zeros", 600, 650)
    # Nobody is asked about what it gives back from now on.
    await fork.do("remove", 700, 800, expect="removed")
    await fork.do("zeros", 700, 800)


async def test_population_lets_demand_faults_and_removals_go_first(full: Template) -> None:
    server = await full.serve(Policy(fault_around_pages=1))
    busy = await full.fork(server, "busy")
    fork = await full.fork(server, "one")
    await asyncio.gather(server.served("busy"), server.served("one"))
    busy.tell("storm", 3, 7)
    fork.tell("churn", 512, 768, 40)
    await server.populate("one")
    await busy.answer("0")
    await fork.answer("0")
    assert (await full.states("one")).count(ABSENT) == 0
    await fork.do("zeros", 512, 768)
    await server.release("one")
    await fork.do("remove", 0, 512, expect="removed")
    await fork.do("zeros", 0, 512)


async def test_a_population_that_cannot_be_finished_says_why_and_the_fork_is_served_on(full: Template) -> None:
    server = await full.serve()
    fork = await full.fork(server, "one", load=False)
    with pytest.raises(PageServerError, match="no handshake"):
        await server.populate("one")
    with pytest.raises(PageServerError, match="not attached"):
        await server.populate("two")
    await fork.do("load", expect="sent")
    await server.served("one")
    content = full.layers[0].read_bytes()
    status = full.layers[0].stat()
    with full.layers[0].open("r+b") as file:
        file.truncate(1000 * PAGE)
    with pytest.raises(PageServerError, match="was truncated"):
        await server.populate("one")
    full.layers[0].write_bytes(content)
    os.utime(full.layers[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    await fork.do("walk", 0, PAGES)
    await server.populate("one")
    await fork.kill()
    await full.event(lambda event: isinstance(event, Gone))
    with pytest.raises(PageServerError, match="has exited"):
        await server.populate("one")


async def test_paths_and_requests_that_cannot_be_are_refused(full: Template) -> None:
    server = await full.serve()
    long = full.directory / ("x" * 107)
    with pytest.raises(PageServerError, match="107 bytes, and this one has"):
        await server.attach("one", listen=long, page_map=full.map("one"), vmm_pid=os.getpid())
    with pytest.raises(PageServerError, match="no VMM has pid"):
        await server.attach("one", listen=full.directory / "u", page_map=full.map("one"), vmm_pid=1 << 22)
    with pytest.raises(PageServerError, match=r"page map .* cannot be made: No such file"):
        missing = full.directory / "missing" / "map"
        await server.attach("one", listen=full.directory / "u", page_map=missing, vmm_pid=os.getpid())
    assert not (full.directory / "u").exists()
    with pytest.raises(PageServerError, match=r"prefetch 'never' is none of before_resume, concurrent, off"):
        await server.attach(
            "one",
            listen=full.directory / "u",
            page_map=full.map("one"),
            vmm_pid=os.getpid(),
            prefetch="never",  # type: ignore[arg-type]
        )
    assert (await server.status()).forks == ()


async def test_garbage_on_the_control_socket_is_answered_or_dropped(full: Template) -> None:
    await full.serve()

    async def say(data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(full.control, limit=1 << 20)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.readline(), TIMEOUT)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    assert b"no JSON object" in await say(b"hello\n")
    assert b"no JSON object" in await say(b"[" * 20000 + b"\n")
    assert b"no JSON object" in await say(b"[1]\n")
    assert json.loads(await say(b'{"id": 7, "verb": "dance"}\n')) == {
        "id": 7,
        "error": "'dance' is no verb of a page server",
    }
    assert b"attach request is malformed" in await say(b'{"id": 8, "verb": "attach", "fork_id": "x"}\n')
    assert await say(b"x" * 200000) == b""
    assert json.loads(await say(b'{"id": 1, "verb": "status"}\n'))["result"]["forks"] == []


async def test_its_control_socket_is_its_users_alone_and_nobody_takes_it(full: Template) -> None:
    await full.serve()
    assert full.control.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PageServerError, match="another page server listens"):
        await full.serve()
