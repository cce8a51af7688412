"""What a page server answers a fault with: of which layer, how many pages, and never a wrong one."""

import random

import pytest

from supervisor.uffd.handle import Attached, Policy, Recorded
from supervisor.uffd.page_map import FAULT_AROUND, FAULTED, REMOVED, ZERO
from tests.harness.page_server_template import PAGE, PAGES, SIZE, Template, random_pages

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_one_page_a_fault(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    fork = await template.fork(server, "one")
    assert await server.served("one") == Attached(0, 0, 0.0)
    await fork.do("walk", 0, PAGES)
    counters = await template.counters("one")
    assert counters.faults == counters.present_pages == sum(counters.latency_counts) == PAGES
    assert counters.copied_bytes == SIZE
    assert (counters.fault_around_pages, counters.copy_errors, counters.oldest_fault_age_seconds) == (0, 0, 0.0)
    assert counters.fault_seconds > 0
    assert (await template.states("one")) == bytes([FAULTED]) * PAGES


async def test_fault_around_answers_with_the_absent_run_of_the_window(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=64))
    fork = await template.fork(server, "one")
    await fork.do("walk", 100, 101)
    await fork.do("walk", 0, PAGES)
    counters = await template.counters("one")
    assert counters.faults == PAGES // 64
    assert counters.fault_around_pages == PAGES - PAGES // 64
    states = await template.states("one")
    assert states[64:128] == bytes([FAULT_AROUND] * 36 + [FAULTED] + [FAULT_AROUND] * 27)


async def test_a_window_adapts_to_a_walk_and_to_scattered_faults_unless_it_is_fixed(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=64))
    scattered = await template.fork(server, "scattered")
    for page in range(1000, PAGES, 100):
        await scattered.do("walk", page, page + 1)
    assert (await template.counters("scattered")).present_pages < 150
    await scattered.do("walk", 0, 900)
    assert (await template.counters("scattered")).faults < 11 + 900 // 64 + 8
    await server.stop()
    server = await template.serve(Policy(fault_around_pages=64, fault_around="fixed"))
    scattered = await template.fork(server, "fixed")
    for page in range(1000, PAGES, 100):
        await scattered.do("walk", page, page + 1)
    assert (await template.counters("fixed")).present_pages == 11 * 64


async def test_regions_are_told_apart(template: Template) -> None:
    server = await template.serve()
    third = SIZE // 4
    fork = await template.fork(server, "one", regions=(third, SIZE - 3 * third, 2 * third))
    await fork.do("storm", 2, 7)
    assert (await template.counters("one")).present_pages == PAGES


async def test_pages_of_no_layer_are_zero_and_copy_nothing(blank: Template) -> None:
    blank.write({10: random_pages(5, 1)}, {12: random_pages(20, 2), 1000: random_pages(3, 3)})
    server = await blank.serve(Policy(fault_around_pages=16))
    fork = await blank.fork(server, "one")
    await fork.do("storm", 3, 1)
    counters = await blank.counters("one")
    data = [*range(10, 32), *range(1000, 1003)]
    assert counters.copied_bytes == len(data) * PAGE
    assert counters.zero_pages == PAGES - len(data)
    assert [page for page, state in enumerate(await blank.states("one")) if state != ZERO] == data
    await fork.do("write", 40, 44, expect="written")
    await fork.do("walk", 44, PAGES)


async def test_chain_of_layers_under_every_window(blank: Template) -> None:
    dice = random.Random(5)
    layers = []
    for number in range(5):
        starts = sorted(dice.sample(range(0, PAGES - 8), 60))
        layers.append({start: random_pages(dice.randrange(1, 8), 1000 * number + start) for start in starts})
    blank.write(*layers)
    for window in (1, 7, 64):
        server = await blank.serve(Policy(fault_around_pages=window))
        fork = await blank.fork(server, f"window{window}")
        await fork.do("storm", 4, window)
        await server.stop()


async def test_removed_pages_are_zero_and_never_the_files_again(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=16))
    fork = await template.fork(server, "one")
    await fork.do("walk", 0, 40)
    await fork.do("remove", 8, 24, expect="removed")
    assert (await template.states("one"))[8:24] == bytes([REMOVED]) * 16
    await fork.do("walk", 0, 8)
    await fork.do("zeros", 8, 20)
    await fork.do("walk", 24, PAGES)
    await fork.do("remove", 1000, 1010, expect="removed")
    await fork.do("zeros", 1000, 1010)
    counters = await template.counters("one")
    assert (counters.removed_pages, counters.zero_pages) == (26, 22)
    assert counters.present_pages == PAGES - 4


async def test_removal_before_the_first_touch_wins_over_fault_around_and_prefetch(template: Template) -> None:
    server = await template.serve()
    first = await template.fork(server, "first", record=True)
    await first.do("walk", 0, 600)
    await template.event(lambda event: isinstance(event, Recorded))
    second = await template.fork(server, "second", prefetch="off")
    await second.do("remove", 100, 200, expect="removed")
    await second.do("walk", 96, 100)
    await second.do("zeros", 100, 200)
    await second.do("walk", 200, 600)


async def test_storm_of_faults_and_removals_loses_no_fault(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one")
    await fork.do("churn", 512, 768, 40)
    counters = await template.counters("one")
    assert counters.removed_pages == 40 * 256
    assert (counters.copy_errors, counters.oldest_fault_age_seconds) == (0, 0.0)


async def test_user_mode_only_userfaultfd_is_served(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one", user_mode_only=True)
    await fork.do("storm", 2, 1)
    assert (await template.counters("one")).present_pages == PAGES
