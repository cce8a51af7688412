"""Templates that the page server's tests share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.page_server_template import PAGES, Template, random_pages


@pytest_asyncio.fixture
async def blank(run_dir: Path) -> AsyncIterator[Template]:
    """Yield a template whose image has not been written yet; its processes end with the test."""
    async with AsyncExitStack() as stack:
        yield Template(run_dir, stack)


@pytest.fixture
def template(blank: Template) -> Template:
    """Return a template whose image is a single layer without holes."""
    blank.write({0: random_pages(PAGES, 1)})
    return blank
