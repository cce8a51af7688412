"""A guest of two vCPUs with a disk, entropy and vsock, in every kind of fork."""

import itertools
from typing import Final

import pytest

from tests.linux.report import Report
from tests.linux.told import OOPS, RESEEDED, without_gap

FORKS: Final = ("warm", "fork-1", "fork-2")
ALL: Final = (*FORKS, "grandchild", "of-file")


def test_linux_boots_with_two_cpus_a_disk_entropy_and_the_tsc_for_a_clock(forks: Report) -> None:
    booted = forks.console("source")
    assert "2 cpu, clock tsc" in booted
    assert "random virtio_rng" in booted
    assert "guest: no " not in booted


@pytest.mark.parametrize("name", (*FORKS, "of-file"))
def test_a_fork_begins_where_its_source_stopped_and_misses_no_tick(forks: Report, name: str) -> None:
    assert without_gap(forks.ticks(name, "source"))


def test_a_fork_of_a_checkpoint_begins_where_that_was_taken_and_misses_no_tick(forks: Report) -> None:
    ticks = forks.ticks("grandchild")
    assert without_gap(ticks)
    assert ticks[0].number in {tick.number for tick in forks.ticks("fork-2")}


@pytest.mark.parametrize("name", ("source", *ALL))
def test_memory_and_disk_are_as_the_guest_has_written_them(forks: Report, name: str) -> None:
    ticks = forks.ticks(name)
    assert [tick for tick in ticks if tick.memory != "same" or tick.disk != str(tick.number)] == []


@pytest.mark.parametrize("name", ("source", *ALL))
def test_no_kernel_complains(forks: Report, name: str) -> None:
    assert OOPS.findall(forks.console(name)) == []


@pytest.mark.parametrize("name", ALL)
def test_a_fork_seeds_its_random_numbers_anew(forks: Report, name: str) -> None:
    assert RESEEDED in forks.console(name)


def test_no_two_guests_draw_the_same_random_number(forks: Report) -> None:
    # What a source has drawn for a tick that it did not print, each of its forks prints.
    drawn = {name: {tick.uuid for tick in forks.ticks(name)[1:]} for name in ("source", *ALL)}
    assert [(one, other) for one, other in itertools.combinations(drawn, 2) if drawn[one] & drawn[other]] == []


@pytest.mark.parametrize("name", FORKS[1:])
def test_what_the_warm_up_fork_touched_is_there_before_a_fork_runs(forks: Report, name: str) -> None:
    assert forks["pages"][name]["prefetched_pages"] > 0


@pytest.mark.parametrize("name", FORKS[1:])
def test_each_fork_answers_at_its_own_vsock_from_its_own_disk(forks: Report, name: str) -> None:
    number, uuid = forks["over_vsock"][name].split()
    assert uuid in {tick.uuid for tick in forks.ticks(name) if tick.number == int(number)}


def test_a_source_with_forks_is_not_restored(forks: Report) -> None:
    status, refusal = forks["refusal"]
    assert status == 409
    assert "mem_locked by 3 share_memory forks (warm, fork-1, fork-2)" in refusal["message"]


def test_a_fork_that_is_detached_or_restored_from_its_own_standby_holds_its_source_no_more(forks: Report) -> None:
    assert forks["locked_by"] == ["warm"]


def test_every_vm_goes_on_when_the_supervisor_is_killed(forks: Report) -> None:
    before, after = forks["vmms"]
    assert set(before) == {"fork-1", "grandchild", "of-file"}
    assert after == before


def test_nothing_is_left_of_a_tree_that_is_deleted(forks: Report) -> None:
    assert forks["left"] == []


def test_the_job_came_to_its_end(forks: Report) -> None:
    assert forks.stopped is None
