"""What is left to be done for a fork does not outlive it."""

import pytest

from supervisor.uffd.control import Policy, Recorded, Sampled
from supervisor.uffd.sampling import STRATUM_PAGES
from tests.harness.page_server_template import PAGES, Template

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_a_sample_is_not_judged_of_a_fork_that_was_undone_before_it_ran(template: Template) -> None:
    server = await template.serve(Policy(sample_every=1, sample_seconds=0.1))
    first = await template.fork(server, "first", record=True)
    await first.do("walk", 0, PAGES)
    await template.event(lambda event: isinstance(event, Recorded))
    await template.fork(server, "undone")
    await server.served("undone")
    await server.release("undone")
    # Its sample would be judged before that of the next fork.
    await template.fork(server, "idle")
    await server.served("idle")
    assert await template.event(lambda event: isinstance(event, Sampled)) == Sampled(PAGES // STRATUM_PAGES, 0)
    await server.ping(seconds=1)
