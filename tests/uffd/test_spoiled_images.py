"""A memory image that changes under its page server: told of, waited for, and never served wrong."""

import pytest

from supervisor.errors import PageServerError
from supervisor.uffd.handle import Failing, Policy
from tests.harness.page_server_template import PAGE, SIZE, Template

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_an_image_that_is_not_as_it_was_is_refused(template: Template) -> None:
    server = await template.serve()
    with template.layers[0].open("r+b") as file:
        file.truncate(SIZE - PAGE)
    with pytest.raises(PageServerError, match=f"mem.0 was truncated to {SIZE - PAGE} bytes"):
        await template.fork(server)
    with pytest.raises(PageServerError, match=r"did not start: layer .* it is truncated or of another VM"):
        await template.serve()
    template.layers[0].unlink()
    with pytest.raises(PageServerError, match=r"did not start: layer .* cannot be opened: No such file"):
        await template.serve()


async def test_a_page_that_cannot_be_provided_is_waited_for_and_never_wrong(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=8))
    fork = await template.fork(server, "one")
    content = template.layers[0].read_bytes()
    with template.layers[0].open("r+b") as file:
        file.truncate(1000 * PAGE)
    fork.tell("walk", 990, 1010)
    failing = await template.event(lambda event: isinstance(event, Failing))
    short = f"layer {template.layers[0]} was truncated to {1000 * PAGE} bytes under its page server"
    assert failing == Failing("one", f"a page cannot be provided: {short}")
    counters = await template.counters("one")
    assert counters.copy_errors > 0
    assert counters.oldest_fault_age_seconds > 0
    template.layers[0].write_bytes(content)
    await fork.answer("0")
    assert (await template.counters("one")).oldest_fault_age_seconds == 0
