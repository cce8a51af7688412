"""One nested host for the session, and what its guests printed beside each failure."""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.harness.firecracker import Unavailable, firecracker_binary
from tests.linux.machines import build
from tests.linux.nested_host import NestedHost
from tests.linux.packages import CACHE, debian
from tests.linux.report import Report

TAIL = 40
"""Lines of each console that are shown."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes the nested host."""
    for item in items:
        if "nested_host" in getattr(item, "fixturenames", ()):
            item.add_marker("linux")


@pytest.fixture(scope="session")
def nested_host() -> Iterator[NestedHost]:
    """Yield the host, once it runs; skip where what it takes cannot be had."""
    try:
        packages, firecracker = debian(), firecracker_binary()
        # Below the checkout, which the host has as it is here; /tmp is its own.
        with tempfile.TemporaryDirectory(prefix="built-", dir=CACHE) as directory:
            machines = build(packages, Path(directory))
            vmm = Path(directory, "firecracker")
            shutil.copy(firecracker, vmm)
            with NestedHost.running(packages, machines, vmm) as host:
                yield host
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def forks(nested_host: NestedHost) -> Report:
    """Return what was seen of a guest of two vCPUs in every kind of fork; its clock is set by nobody."""
    return nested_host.run("forks")


@pytest.fixture(scope="session")
def large(nested_host: NestedHost) -> Report:
    """Return what was seen of a guest of more than 3 GiB; its clock follows the host's."""
    return nested_host.run("large")


@pytest.fixture(scope="session")
def devices(nested_host: NestedHost) -> Report:
    """Return what was seen of a guest with a balloon and a network interface; its clock follows the host's."""
    return nested_host.run("devices")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have a failure show what the job did and what its guests printed last."""
    report = yield
    if report.failed:
        for told in getattr(item, "funcargs", {}).values():
            if isinstance(told, Report):
                report.sections += _sections(told)
    return report


def _sections(told: Report) -> Iterator[tuple[str, str]]:
    yield f"job {told.job}, {told.seconds:.0f} s", "\n".join(told.steps)
    for name, console in told.consoles.items():
        yield f"console of {name}", "\n".join(console.splitlines()[-TAIL:])
    yield "end of the supervisor's log", told.log
