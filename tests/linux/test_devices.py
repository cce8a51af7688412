"""A guest with a balloon and a network interface, and guests in pages of 2 MiB."""

import pytest

from tests.linux.inside.jobs.devices import BALLOON_PAGES
from tests.linux.nested_host import NestedHost
from tests.linux.report import Report
from tests.linux.told import OOPS, without_gap


@pytest.fixture(scope="module")
def huge(nested_host: NestedHost) -> Report:
    """Run the job with pages of 2 MiB."""
    return nested_host.run("huge")


def test_a_guest_has_its_network_interface(devices: Report) -> None:
    assert "net eth0 lo" in devices.console("devices")


def test_a_tap_is_one_forks_and_the_other_is_told_so(devices: Report) -> None:
    (message,) = devices["errors"]
    assert "Open tap device failed" in message
    assert "Resource busy" in message


def test_what_a_balloon_takes_of_a_fork_is_served_from_its_source_no_more(devices: Report) -> None:
    assert devices["removed"] >= BALLOON_PAGES


def test_a_fork_finds_its_memory_as_it_was_with_a_balloon_that_grew_and_shrank(devices: Report) -> None:
    ticks = devices.ticks(devices["fork"], "devices")
    assert {tick.memory for tick in ticks} == {"same"}
    assert without_gap(ticks)


def test_no_kernel_with_devices_complains(devices: Report) -> None:
    assert [OOPS.findall(devices.console(name)) for name in ("devices", devices["fork"])] == [[], []]


def test_the_job_with_devices_came_to_its_end(devices: Report) -> None:
    assert devices.stopped is None


@pytest.mark.parametrize("name", ["leaf-1", "leaf-2"])
def test_a_fork_in_pages_of_2_mib_goes_on_where_its_source_stopped(huge: Report, name: str) -> None:
    ticks = huge.ticks(name, "huge")
    assert {tick.memory for tick in ticks} == {"same"}
    assert without_gap(ticks)
    assert OOPS.findall(huge.console(name)) == []


@pytest.mark.parametrize("name", ["leaf-1", "leaf-2"])
def test_a_fork_in_pages_of_2_mib_is_served_those(huge: Report, name: str) -> None:
    pages = huge["pages"][name]
    assert pages["total_pages"] == (256 << 20) // (2 << 20)
    assert 0 < pages["present_pages"] <= pages["total_pages"]


def test_the_pool_of_huge_pages_is_all_given_back(huge: Report) -> None:
    assert huge["pool"] == 0


def test_the_job_with_pages_of_2_mib_came_to_its_end(huge: Report) -> None:
    assert huge.stopped is None
