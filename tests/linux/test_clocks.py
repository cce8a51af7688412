"""The wall clock of a clone, with the line of docs/linux-guests.md in its init, and without one."""

import re

import pytest

from tests.harness.checkout import ROOT
from tests.linux.inside.jobs.forks import SLEPT
from tests.linux.report import Report

GIVE_OR_TAKE = 1.0
"""Seconds that a clock may be off: a tick's date is in whole ones, and phc2sys lets half of one pass."""


@pytest.mark.parametrize("name", ["big-1", "big-2"])
def test_the_clock_of_a_clone_that_follows_its_hosts_is_between_two_stamps_of_the_host(
    large: Report, name: str
) -> None:
    before, stamp, after = large["stamps"][name]
    assert before - GIVE_OR_TAKE <= stamp <= after + GIVE_OR_TAKE


@pytest.mark.parametrize("name", ["warm", "fork-1", "fork-2"])
def test_the_clock_of_a_clone_that_does_not_is_behind_for_as_long_as_its_source_lay_in_standby(
    forks: Report, name: str
) -> None:
    host, guest = forks["clocks"][name]
    assert host - guest >= SLEPT


def test_a_guest_can_read_its_hosts_clock(large: Report) -> None:
    assert "ptp KVM virtual PTP" in large.console("large")


def test_the_line_that_is_tested_is_the_one_that_the_documentation_shows() -> None:
    shown = re.findall(r"phc2sys -s /dev/ptp0 .*?(?= &$)", (ROOT / "docs/linux-guests.md").read_text(), re.MULTILINE)
    init = (ROOT / "tests/linux/guest_init.sh").read_text()
    assert shown
    assert [line for line in shown if line not in init] == []
