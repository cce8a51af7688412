"""How guests end by themselves: what is left of each to tell it by."""

import pytest

from tests.linux.inside.jobs.ends import GOES_ON
from tests.linux.nested_host import NestedHost
from tests.linux.report import Report

STOPPED = ("panic", "exit", "reboot", "reset", "triple-fault")


@pytest.fixture(scope="module")
def ends(nested_host: NestedHost) -> Report:
    """Run the job."""
    return nested_host.run("ends")


@pytest.mark.parametrize("name", STOPPED)
def test_the_vmm_of_a_guest_that_panics_reboots_or_faults_ends_with_it(ends: Report, name: str) -> None:
    instance = ends["instances"][name]
    assert (instance["state"], instance["exit_code"]) == ("Stopped", 0)


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("panic", "panic", "its guest panicked: sysrq triggered crash"),
        ("exit", "panic", "its guest panicked: Attempted to kill init! exitcode=0x00000300"),
        ("reboot", "reboot", "its guest rebooted"),
        ("reset", "reboot", "its guest rebooted"),
        # By a triple fault, which is how its guest chose to reboot.
        ("triple-fault", "reboot", "its guest rebooted"),
    ],
)
def test_why_a_guest_has_ended_is_told_and_only_a_panic_is_a_death(
    ends: Report, name: str, reason: str, words: str
) -> None:
    instance = ends["instances"][name]
    assert (instance["exit_reason"], instance["died"]) == (reason, reason == "panic")
    assert instance["exit_message"].startswith(words)


def test_a_guest_that_is_switched_off_is_halted_and_its_vmm_waits_which_is_told(ends: Report) -> None:
    assert ends["instances"][GOES_ON]["state"] == "Running"
    assert ends["last words"]["says"] == "halt"


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
