"""Embedded VMMs to start, and each hypervisor in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.embedded_balloon import ONCE, boot
from tests.harness.vmm_process import Start, vmms


@pytest.fixture
def start(run_dir: Path) -> Iterator[Start]:
    """A function that starts VMMs in `run_dir`."""
    with vmms(run_dir) as start:
        yield start


@pytest.fixture(scope="module")
def ballasted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the state-file and the mem-file of a guest whose ballast is all there, and whose balloon is empty."""
    folder = tmp_path_factory.mktemp("ballasted")
    with vmms(folder) as start:
        vmm = boot(start, folder, ONCE)
        vmm.console.until("done")
        return vmm.snapshot()
