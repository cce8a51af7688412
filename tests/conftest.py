"""Fixtures that several test files share, and the summary of what was skipped."""

import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from supervisor.uffd import kernel
from supervisor.vmm.hypervisor import Hypervisor, available, embedded_hypervisor
from tests.harness import leftovers
from tests.harness.firecracker import Unavailable, find_firecracker
from tests.harness.one_host_scheduler import OneHostScheduling
from tests.harness.supervisor_process import Home, home_at

SUPERVISED = frozenset({"home", "embedded", "firecracker_home", "nested_host"})
"""The fixtures of a test that starts supervisors."""

# How long an example takes says nothing of what is tested where others use the machine too.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Have the whole session looked at for what it leaves, and no signal ignored by what it starts.

    A shell without job control ignores SIGINT and SIGQUIT in what it runs in the background, and nohup(1) SIGHUP.
    """
    config.pluginmanager.register(leftovers)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneHostScheduling:
    """Have one worker run all that takes the nested host."""
    return OneHostScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as `quick` every test that starts no supervisor of its own and is not marked `slow`."""
    for item in items:
        supervised = not SUPERVISED.isdisjoint(getattr(item, "fixturenames", ()))
        if not supervised and item.get_closest_marker("slow") is None:
            item.add_marker("quick")


@pytest.fixture(scope="session")
def firecracker() -> Path:
    """Return a real Firecracker binary that can run here; skip where there is none."""
    try:
        return find_firecracker()
    except Unavailable as reason:
        pytest.skip(f"Firecracker: {reason}")


@pytest.fixture(scope="session")
def userfaultfd() -> None:
    """Skip where this process cannot have a userfaultfd."""
    try:
        os.close(kernel.userfaultfd(kernel.O_CLOEXEC | kernel.UFFD_USER_MODE_ONLY))
    except OSError as error:
        pytest.skip(f"userfaultfd: {error.strerror}")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Return a directory whose path leaves room for socket names in sun_path's 107 bytes; pytest's tmp_path may not."""
    path = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def embedded(run_dir: Path) -> Iterator[Home]:
    """Yield the home of a supervisor on the embedded VMM; what a test leaves in it is ended."""
    with home_at(run_dir) as made:
        yield made


@pytest.fixture
def firecracker_home(run_dir: Path, firecracker: Path) -> Iterator[Home]:
    """Yield the same on Firecracker."""
    with home_at(run_dir, "firecracker", firecracker) as made:
        yield made


@pytest.fixture(params=["embedded", "firecracker_home"], ids=["embedded", "firecracker"])
def home(request: pytest.FixtureRequest) -> Home:
    """Return the same on each hypervisor in turn."""
    made: Home = request.getfixturevalue(request.param)
    return made


@pytest.fixture(params=["embedded", "firecracker"])
def hypervisor(request: pytest.FixtureRequest) -> Hypervisor:
    """Return each hypervisor in turn."""
    if request.param == "embedded":
        return embedded_hypervisor()
    found = available(request.getfixturevalue("firecracker"))["firecracker"]
    assert isinstance(found, Hypervisor), found
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped, and for want of what."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        wants = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"{len(skipped)} tests skipped for want of: {wants}", yellow=True)
