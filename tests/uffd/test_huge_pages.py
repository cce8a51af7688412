"""Huge pages: served and prefetched in units of 2 MiB, and a pool that has too few of them told of in time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.errors import PageServerError
from supervisor.uffd import huge_pages
from supervisor.uffd.handle import Failing, Policy, Recorded
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, free_pages
from supervisor.uffd.page_map import FAULTED, PREFETCHED, ZERO
from tests.harness.huge_page_pool import POOL, free_in_pool, set_free
from tests.harness.page_server_template import Template, random_pages

HUGE_PAGES = 4
SIZE = HUGE_PAGES * HUGE_PAGE_BYTES

pytestmark = pytest.mark.usefixtures("userfaultfd")


@pytest.fixture
def pool() -> Iterator[None]:
    """A pool with pages for two forks, and what it was before afterwards."""
    with free_in_pool(2 * HUGE_PAGES):
        yield


@pytest.fixture
def template(pool: None, blank: Template) -> Template:
    """A template of huge pages, one of which comes from two layers and one of which is partly in none."""
    blank.write({0: random_pages(600, 1), 1030: random_pages(3, 2)}, {512: random_pages(512, 3)}, size=SIZE)
    return blank


async def test_pages_are_served_in_their_own_size(template: Template) -> None:
    server = await template.serve(size=SIZE, page_size=HUGE_PAGE_BYTES)
    fork = await template.fork(server, "one", regions=(SIZE,), page_size=HUGE_PAGE_BYTES)
    await fork.do("walk", 0, HUGE_PAGES)
    counters = await template.counters("one")
    assert counters.present_pages == counters.faults == HUGE_PAGES
    assert await template.states("one") == bytes([FAULTED, FAULTED, FAULTED, ZERO])
    await fork.do("remove", 1, 2, expect="removed")
    await fork.do("zeros", 1, 2)
    await fork.do("walk", 2, HUGE_PAGES)


async def test_pages_are_prefetched_in_their_own_size(template: Template) -> None:
    server = await template.serve(Policy(record_quiet_seconds=0.5), size=SIZE, page_size=HUGE_PAGE_BYTES)
    first = await template.fork(server, "first", regions=(SIZE,), page_size=HUGE_PAGE_BYTES, record=True)
    await first.do("walk", 0, 3)
    recorded = await template.event(lambda event: isinstance(event, Recorded))
    assert recorded == Recorded("first", 3, 1, 3 * HUGE_PAGE_BYTES)
    second = await template.fork(server, "second", regions=(SIZE,), page_size=HUGE_PAGE_BYTES)
    assert (await server.served("second")).prefetched_pages == 3
    await second.do("walk", 0, HUGE_PAGES)
    assert (await template.counters("second")).faults == 1
    assert await template.states("second") == bytes([PREFETCHED, PREFETCHED, PREFETCHED, ZERO])


async def test_a_pool_that_runs_dry_all_the_same_makes_the_guest_wait_and_nothing_wrong(template: Template) -> None:
    server = await template.serve(size=SIZE, page_size=HUGE_PAGE_BYTES)
    fork = await template.fork(server, "one", regions=(SIZE,), page_size=HUGE_PAGE_BYTES)
    await fork.do("walk", 0, 1)
    set_free(0)
    fork.tell("walk", 1, HUGE_PAGES)
    failing = await template.event(lambda event: isinstance(event, Failing))
    assert failing == Failing("one", "a page cannot be provided: the host's pool has no huge page left")
    counters = await template.counters("one")
    assert (counters.present_pages, counters.faults) == (1, 1)
    assert counters.oldest_fault_age_seconds > 0
    # The guest takes them at once: what is free afterwards tells nothing.
    POOL.write_text(str(int(POOL.read_text()) + HUGE_PAGES))
    await fork.answer("0")
    counters = await template.counters("one")
    assert (counters.present_pages, counters.oldest_fault_age_seconds) == (HUGE_PAGES, 0.0)


def test_what_a_pool_can_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "POOL", tmp_path)
    with pytest.raises(PageServerError, match="the host has no pool of huge pages"):
        free_pages()
    numbers = {"free_hugepages": 10, "resv_hugepages": 3, "nr_overcommit_hugepages": 5, "surplus_hugepages": 1}
    for name, number in numbers.items():
        (tmp_path / name).write_text(f"{number}\n")
    assert free_pages() == 11
