"""A VMM that makes its userfaultfd blocking harms itself at most: its siblings are served on, also after a takeover."""

import pytest

from supervisor.errors import PageServerError
from supervisor.uffd.handle import Gone, PageServer, Policy
from tests.harness.fork_in_miniature import Fork
from tests.harness.page_server_template import PAGES, Template

GONE = Gone("hostile", "its userfaultfd cannot be served: its VMM has made it blocking")

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def siblings(template: Template, server: PageServer) -> tuple[Fork, Fork]:
    """A fork that is going to be `hostile`, and a `good` one; both are served."""
    forks = await template.fork(server, "hostile"), await template.fork(server, "good")
    for fork_id in ("hostile", "good"):
        await server.served(fork_id)
    return forks


async def turn_hostile(template: Template, server: PageServer, hostile: Fork) -> None:
    """Have it block whoever reads, fault, and be served no more for it."""
    await hostile.do("block", expect="blocking")
    hostile.tell("walk", 1000, PAGES)
    assert await template.event(lambda event: isinstance(event, Gone)) == GONE
    assert (await server.status()).forks == ("good",)


async def test_one_that_blocks_before_its_handshake_is_served_all_the_same(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one", load=False)
    await fork.do("block", expect="blocking")
    await fork.do("load", expect="sent")
    await fork.do("walk", 0, PAGES)


async def test_one_that_blocks_after_its_handshake_is_served_no_more_and_its_siblings_are(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    hostile, good = await siblings(template, server)
    await turn_hostile(template, server, hostile)
    await good.do("walk", 0, PAGES)


async def test_one_that_blocks_while_nobody_reads_does_not_hold_up_the_successor(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    hostile, good = await siblings(template, server)
    server.kill()
    await server.exited
    await hostile.do("block", expect="blocking")
    hostile.tell("walk", 0, 1000)
    good.tell("walk", 0, 1000)
    successor = await template.serve(Policy(fault_around_pages=1))
    for fork_id, fork in (("hostile", hostile), ("good", good)):
        await successor.adopt(fork_id, page_map=template.map(fork_id), vmm_pid=fork.pid)
    await hostile.answer("0")
    await good.answer("0")
    await turn_hostile(template, successor, hostile)
    await good.do("walk", 0, PAGES)


async def test_one_that_is_served_no_more_may_be_adopted_again_by_the_same_page_server(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    hostile, good = await siblings(template, server)
    with pytest.raises(PageServerError, match="fork good is attached already: release it first"):
        await server.adopt("good", page_map=template.map("good"), vmm_pid=good.pid)
    await turn_hostile(template, server, hostile)
    await server.adopt("hostile", page_map=template.map("hostile"), vmm_pid=hostile.pid)
    await hostile.answer("0")
    assert (await server.status()).forks == ("hostile", "good")
