"""Populating a fork: it has all of its pages then, and needs no page server any more."""

import asyncio
import os

import pytest

from supervisor.errors import PageServerError
from supervisor.uffd.handle import Gone, Policy
from supervisor.uffd.page_map import ABSENT, REMOVED, ZERO
from tests.harness.page_server_template import PAGE, PAGES, SIZE, Template, random_pages

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_a_populated_fork_needs_no_page_server_any_more(blank: Template) -> None:
    blank.write({0: random_pages(700, 1), 1500: random_pages(100, 2)}, {600: random_pages(300, 3)})
    server = await blank.serve(Policy(fault_around_pages=4))
    fork = await blank.fork(server, "one", regions=(SIZE // 4, 3 * SIZE // 4))
    await fork.do("walk", 0, 10)
    await fork.do("remove", 4, 8, expect="removed")
    await fork.do("remove", 600, 650, expect="removed")
    await asyncio.gather(server.populate("one"), server.populate("one"))
    states = await blank.states("one")
    assert states.count(ABSENT) == 0
    assert states[4:8] + states[600:650] == bytes([REMOVED]) * 54
    assert states[900:1500] == bytes([ZERO]) * 600, "what no layer has is the kernel's zero page, not a copy"
    counters = await blank.counters("one")
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


async def test_population_lets_demand_faults_and_removals_go_first(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    busy = await template.fork(server, "busy")
    fork = await template.fork(server, "one")
    await asyncio.gather(server.served("busy"), server.served("one"))
    busy.tell("storm", 3, 7)
    fork.tell("churn", 512, 768, 40)
    await server.populate("one")
    await busy.answer("0")
    await fork.answer("0")
    assert (await template.states("one")).count(ABSENT) == 0
    await fork.do("zeros", 512, 768)
    await server.release("one")
    await fork.do("remove", 0, 512, expect="removed")
    await fork.do("zeros", 0, 512)


async def test_a_population_that_cannot_be_finished_says_why_and_the_fork_is_served_on(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one", load=False)
    with pytest.raises(PageServerError, match="no handshake"):
        await server.populate("one")
    with pytest.raises(PageServerError, match="not attached"):
        await server.populate("two")
    await fork.do("load", expect="sent")
    await server.served("one")
    content = template.layers[0].read_bytes()
    status = template.layers[0].stat()
    with template.layers[0].open("r+b") as file:
        file.truncate(1000 * PAGE)
    with pytest.raises(PageServerError, match="was truncated"):
        await server.populate("one")
    template.layers[0].write_bytes(content)
    os.utime(template.layers[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    await fork.do("walk", 0, PAGES)
    await server.populate("one")
    await fork.kill()
    await template.event(lambda event: isinstance(event, Gone))
    with pytest.raises(PageServerError, match="has exited"):
        await server.populate("one")
