"""A page server that takes over from one that died at the worst moment: between the kernel's doing and its own note."""

import os

import pytest

from supervisor.errors import PageServerError
from supervisor.uffd.handle import Failing, PageServer, Policy
from supervisor.uffd.page_map import ABSENT, FAULTED, PREFETCHED, REMOVED, ZERO
from tests.harness.fork_in_miniature import Fork
from tests.harness.page_server_template import PAGE, PAGES, SIZE, Template

PAGE_MAP_HEADER = 4096

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def killed(server: PageServer) -> None:
    server.kill()
    await server.exited


async def taken_over(template: Template, fork: Fork) -> None:
    """Return when another page server has the fork."""
    server = await template.serve(Policy(fault_around_pages=64, fault_around="fixed"))
    await server.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid)


def note(template: Template, start: int, end: int, state: int) -> None:
    """Have the page map of a dead page server say this of pages [start, end)."""
    with template.map("one").open("r+b") as file:
        file.seek(PAGE_MAP_HEADER + start)
        file.write(bytes([state]) * (end - start))


async def test_a_fault_that_the_dead_one_had_read_is_raised_again(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    fork = await template.fork(server, "one")
    content, status = template.layers[0].read_bytes(), template.layers[0].stat()
    os.truncate(template.layers[0], 100 * PAGE)
    # By one thread: another's fault, not read yet, would bring an answer that wakes this one too.
    fork.tell("walk", 90, PAGES)
    assert isinstance(await template.event(lambda event: isinstance(event, Failing)), Failing)
    await killed(server)
    template.layers[0].write_bytes(content)
    os.utime(template.layers[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    await taken_over(template, fork)
    await fork.answer("0")
    counters = await template.counters("one")
    assert (counters.present_pages >= PAGES - 90, counters.oldest_fault_age_seconds) == (True, 0.0)


async def test_a_removal_that_the_dead_one_had_read_and_not_noted_stays_a_removal(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one")
    await fork.do("walk", 0, 200)
    await fork.do("remove", 40, 60, expect="removed")
    # The guest goes on as soon as its event was read, which is before it is noted.
    await template.states("one")
    await killed(server)
    note(template, 40, 60, PREFETCHED)
    await taken_over(template, fork)
    assert (await template.states("one"))[40:60] == bytes([REMOVED]) * 20
    await fork.do("zeros", 40, 60)
    await fork.do("walk", 0, 40)
    await fork.do("walk", 60, PAGES)
    assert (await template.states("one"))[40:60] == bytes([ZERO]) * 20


async def test_a_copy_that_the_dead_one_had_not_noted_is_found_there(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one")
    await fork.do("walk", 0, 200)
    await fork.do("write", 196, 200, expect="written")
    await killed(server)
    note(template, 196, 200, ABSENT)
    await taken_over(template, fork)
    # The window of the first fault reaches into what is there: EEXIST, and what the guest wrote is not copied over.
    await fork.do("walk", 200, PAGES)
    states = await template.states("one")
    assert states[196:200] == bytes([FAULTED]) * 4
    assert states.count(ABSENT) == 0
    await fork.do("walk", 196, 200, expect="4")


async def test_a_fork_that_cannot_be_taken_over_is_told_and_left_alone(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one", load=False)
    await killed(server)
    other = await template.serve()
    with pytest.raises(PageServerError, match="its handshake was never made"):
        await other.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid)
    os.truncate(template.map("one"), SIZE // PAGE)
    with pytest.raises(PageServerError, match=r"no page map|torn"):
        await other.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid)
    with pytest.raises(PageServerError, match="has no userfaultfd"):
        await other.adopt("one", page_map=template.map("one"), vmm_pid=os.getpid())
    await fork.kill()
    with pytest.raises(PageServerError, match=r"the userfaultfd of pid .* cannot be had: No such process"):
        await other.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid)
    assert (await other.status()).forks == ()
