"""How guests end by themselves: what is left of each to tell it by."""

import pytest

from tests.linux.inside.jobs.ends import GOES_ON
from tests.linux.nested_host import NestedHost
from tests.linux.report import Report

STOPPED = ("panic", "reboot", "triple-fault")


@pytest.fixture(scope="module")
def ends(nested_host: NestedHost) -> Report:
    """Run the job."""
    return nested_host.run("ends")


@pytest.mark.parametrize("name", STOPPED)
def test_the_vmm_of_a_guest_that_panics_reboots_or_faults_ends_with_it(ends: Report, name: str) -> None:
    instance = ends["instances"][name]
    assert (instance["state"], instance["exit_code"]) == ("Stopped", 0)


def test_a_guest_that_is_switched_off_is_halted_and_its_vmm_waits(ends: Report) -> None:
    assert ends["instances"][GOES_ON]["state"] == "Running"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("panic", "Kernel panic - not syncing: sysrq triggered crash"),
        ("reboot", "reboot: Restarting system"),
        ("triple-fault", "reboot: Restarting system"),
        ("poweroff", "reboot: System halted"),
    ],
)
def test_the_console_keeps_the_last_that_a_kernel_has_said(ends: Report, name: str, words: str) -> None:
    assert words in ends.console(name)


def test_the_job_of_ends_came_to_its_end(ends: Report) -> None:
    assert ends.stopped is None
