"""The table of what Firecracker's versions do wrong: which version has which row, and which machine it concerns."""

from typing import Final

import pytest

from supervisor.rules.firecracker_versions import (
    FAULTS,
    FIRST_SLOT_BYTES,
    REVIEWED,
    Fault,
    Machine,
    faults,
    faults_of,
    has,
    is_whole,
    notice,
    parse,
)
from tests.harness.firecracker_releases import AFFECTED, RELEASES, least_machine

EVERYTHING: Final = Machine(
    size_bytes=FIRST_SLOT_BYTES + 1,
    devices=frozenset({"balloon", "balloon-statistics", "vsock", "memory-hotplug", "async-drive"}),
    loaded=True,
    has_base=True,
    tracked=False,
)


def names(found: tuple[Fault, ...]) -> set[str]:
    return {fault.name for fault in found}


def test_each_row_is_in_the_tests_and_has_a_name_of_its_own() -> None:
    assert [fault.name for fault in FAULTS] == list(AFFECTED)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_affects_the_releases_that_its_source_says(fault: Fault) -> None:
    assert [version for version in RELEASES if fault.affects(version)] == AFFECTED[fault.name]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_is_assumed_of_versions_that_are_no_release_and_of_what_is_no_version(fault: Fault) -> None:
    assert fault.affects("main")
    assert fault.affects("")
    if fault.since != "0.0.0":
        assert fault.affects(f"{fault.since}-dev"), "it may have it already"
    for fixed in fault.fixed:
        assert fault.affects(f"{fixed}-dev"), "it may have it still"
        assert fault.affects(f"{fixed}-1-gabc")
        assert not fault.affects(fixed)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_concerns_the_machines_that_it_names(fault: Fault) -> None:
    if fault.name == "unreadable-state-file":
        assert not fault.concerns(EVERYTHING), "it is about images"
        return
    assert fault.concerns(least_machine(fault.name))
    assert fault.concerns(EVERYTHING)
    assert fault.concerns(Machine()) is (fault.name == "too-old")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_says_where_it_is_from_and_what_is_done(fault: Fault) -> None:
    assert "CHANGELOG" in fault.source or "commit" in fault.source or "src/vmm" in fault.source
    assert not fault.what.endswith(".")
    assert (fault.doing == "It is said") == (fault.action == "warn")
    assert all(parse(version) for version in (fault.since, *fault.fixed))


@pytest.mark.parametrize(
    ("version", "machine", "expected"),
    [
        ("1.14.1", Machine(size_bytes=FIRST_SLOT_BYTES + 1), True),
        ("1.14.1", Machine(size_bytes=FIRST_SLOT_BYTES), False),
        ("1.14.1", Machine(devices=frozenset({"memory-hotplug"})), True),
        ("1.14.2", Machine(size_bytes=FIRST_SLOT_BYTES + 1), False),
        ("1.15.0-dev", Machine(size_bytes=FIRST_SLOT_BYTES + 1), True),
        ("1.13.2", Machine(size_bytes=FIRST_SLOT_BYTES + 1), False),
        ("unknown", Machine(size_bytes=FIRST_SLOT_BYTES + 1), True),
        ("1.12.1", Machine(devices=frozenset({"balloon"})), False),
        ("1.12.1", Machine(devices=frozenset({"balloon"}), has_base=True), True),
        ("1.16.1", Machine(devices=frozenset({"memory-hotplug"}), has_base=True), True),
        ("1.16.1", Machine(devices=frozenset({"vsock"}), has_base=True), False),
        (None, EVERYTHING, False),
    ],
)
def test_a_snapshot_is_whole_where_a_diff_would_be_wrong(version: str | None, machine: Machine, expected: bool) -> None:
    assert is_whole(version, machine) is expected


def test_what_is_no_firecracker_has_no_faults() -> None:
    assert faults(None) == faults_of(None, EVERYTHING) == ()
    assert has(None, "too-old") is None
    assert names(faults("anything")) == names(FAULTS)


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("diff-of-several-slots", "from 1.14.0 before 1.14.2, 1.15.0"),
        ("diff-misses-discards", "all"),
        ("diff-by-mincore", "from 1.13.0 on"),
        ("too-old", "before 1.12.0"),
    ],
)
def test_versions_are_told_in_words(name: str, versions: str) -> None:
    assert next(fault for fault in FAULTS if fault.name == name).versions == versions


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (None, None),
        ("1.12.1", None),
        (REVIEWED, None),
        ("1.16.2", "1.16.2 is newer than 1.16.1, the last whose changes were read"),
        ("1.14.0-dev", "1.14.0-dev is no release: it is taken to have the faults that came or went with that release"),
        ("main", "main is no version that can be read: it is taken to have every known fault"),
    ],
)
def test_what_is_not_known_of_a_version_is_said(version: str | None, said: str | None) -> None:
    assert notice(version) == said
