"""A guest of more than 3 GiB: diff layers of it, and forks of those."""

from typing import Final

import pytest

from tests.linux.machines import LARGE_MIB
from tests.linux.report import Report
from tests.linux.told import OOPS, without_gap

ALL: Final = ("large", "big-1", "big-2")
FORKS: Final = ALL[1:]


def test_its_memory_is_written_as_a_diff_layer_of_what_it_has_touched(large: Report) -> None:
    instance, machine = large["source"]
    assert instance["track_dirty_pages"]
    assert instance["size_bytes"] == LARGE_MIB << 20
    assert [layer["disk_bytes"] < LARGE_MIB << 18 for layer in machine["layers"]] == [True]


def test_a_fork_that_is_put_to_standby_adds_a_layer_to_its_sources(large: Report) -> None:
    before, after = large["source"][1]["layers"], large["layers"]["layers"]
    assert len(after) == len(before) + 1


@pytest.mark.parametrize("name", FORKS)
def test_a_large_fork_begins_where_its_source_stopped_and_misses_no_tick(large: Report, name: str) -> None:
    assert without_gap(large.ticks(name, "large"))


@pytest.mark.parametrize("name", ALL)
def test_a_large_guest_finds_its_memory_and_disk_as_it_has_written_them(large: Report, name: str) -> None:
    ticks = large.ticks(name)
    assert [tick for tick in ticks if tick.memory != "same" or tick.disk != str(tick.number)] == []


@pytest.mark.parametrize("name", ALL)
def test_no_large_guests_kernel_complains(large: Report, name: str) -> None:
    assert OOPS.findall(large.console(name)) == []


def test_the_large_job_came_to_its_end(large: Report) -> None:
    assert large.stopped is None
