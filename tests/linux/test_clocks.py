"""The wall clock of a clone, with the line of docs/linux-guests.md in its init, and without one."""

import re

import pytest

from tests.harness.checkout import ROOT
from tests.linux.inside.jobs.forks import are_behind
from tests.linux.report import Report
from tests.linux.told import Stamps


@pytest.mark.parametrize("name", ["big-1", "big-2"])
def test_with_phc2sys_the_clock_of_a_clone_is_between_two_stamps_of_its_host(large: Report, name: str) -> None:
    assert Stamps(*large["stamps"][name]).agree()


def test_with_chrony_the_clock_of_a_clone_is_between_two_stamps_of_its_host(devices: Report) -> None:
    assert Stamps(*devices["stamps"]).agree()


@pytest.mark.parametrize("name", ["fork-1", "fork-2"])
def test_the_clock_of_a_clone_that_does_not_is_behind_for_as_long_as_its_source_lay_in_standby(
    forks: Report, name: str
) -> None:
    assert are_behind(Stamps(*forks["stamps"][name]))


def test_a_guest_can_read_its_hosts_clock(large: Report) -> None:
    assert "ptp KVM virtual PTP" in large.console("large")


def test_what_is_tested_is_what_the_documentation_shows() -> None:
    shown = (ROOT / "docs/linux-guests.md").read_text()
    init = (ROOT / "tests/linux/guest_init.sh").read_text()
    lines = re.findall(r"run phc2sys (.*) &$|\"(refclock .*)\" \"(makestep .*)\" &$", init, re.MULTILINE)
    words = [word for line in lines for word in line if word]
    assert len(words) == 3
    assert [word for word in words if word not in shown] == []
