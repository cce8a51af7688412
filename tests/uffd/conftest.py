"""Templates that the page server's tests share."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.harness.page_server_template import PAGES, Template, random_pages
from tests.harness.pager_bench import Bench


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


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Yield a pager and its memory; its threads end with the test."""
    made = Bench(tmp_path)
    yield made
    made.close()
