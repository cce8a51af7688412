"""Why a VM ended is told by its process and its VMM's log; its console says which end of its own a guest came to."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.rules.endings import Ending, ending, last_words, standing_words

STOPPING = ["Vmm is stopping."]
RESET = [*STOPPING, "Requested a vCPU run with immediate_exit enabled. The operation was skipped", *STOPPING]
ENDED = "Firecracker exiting successfully. exit_code=0"
FAULT = ["Received KVM_EXIT_SHUTDOWN signal", *STOPPING, *STOPPING]
NEW_FAULT = ["Unexpected exit reason on vcpu run: Shutdown", *STOPPING]
FAILED = "Firecracker exiting with error. exit_code=1"
PANIC = [
    "[    3.014221] Kernel panic - not syncing: sysrq triggered crash",
    "[    3.014399] CPU: 0 PID: 1 Comm: sh Not tainted 6.1.0-40-amd64 #1  Debian 6.1.153-1",
    "[    3.014601] Call Trace:",
    "[    3.014700] Kernel Offset: disabled",
]
STAYS = [*PANIC, "[    3.014800] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---"]
NO_INIT = "[    1.5][    T1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300"
REBOOTING = [*PANIC, "[    3.014900] Rebooting in 1 seconds.."]
RESTART = ["[    9.1] reboot: Restarting system", "[    9.2] reboot: machine restart"]
SYSRQ = ["[    9.1] sysrq: Resetting"]
HALTED = ["[    9.1] reboot: System halted"]
QUIET = ["login:"]
NOT_SAID = "its guest reset its machine, and its console does not say why"


@pytest.mark.parametrize(
    ("code", "number", "log", "console", "reason", "text", "died"),
    [
        (0, None, RESET, REBOOTING, "panic", "its guest panicked: sysrq triggered crash", True),
        (0, None, [*RESET, ENDED], PANIC, "panic", "its guest panicked: sysrq triggered crash", True),
        (0, None, RESET, [NO_INIT], "panic", "its guest panicked: Attempted to kill init! exitcode=0x00000300", True),
        (0, None, FAULT, REBOOTING, "panic", "its guest panicked: sysrq triggered crash", True),
        (0, None, RESET, RESTART, "reboot", "its guest rebooted, which ends a microVM", False),
        (0, None, RESET, SYSRQ, "reboot", "its guest rebooted, which ends a microVM", False),
        (0, None, FAULT, RESTART, "reboot", "its guest rebooted, which ends a microVM", False),
        (0, None, RESET, [*PANIC, *RESTART], "reboot", "its guest rebooted, which ends a microVM", False),
        (0, None, RESET, QUIET, "reset", NOT_SAID, True),
        (0, None, RESET, HALTED, "reset", NOT_SAID, True),
        (0, None, [*FAULT, ENDED], QUIET, "triple_fault", "its guest ended in a triple fault", True),
        (1, None, [*NEW_FAULT, FAILED], QUIET, "triple_fault", "its guest ended in a triple fault", True),
        (0, None, ["Received KVM_SYSTEM_EVENT: type: 1, event: [0]", *STOPPING], QUIET, "shutdown",
         "its guest shut its machine down", False),
        (0, None, ["Received KVM_SYSTEM_EVENT: type: 2, event: [0]", *STOPPING], QUIET, "reboot",
         "its guest rebooted, which ends a microVM", False),
        # By an earlier supervisor: its exit status is in the log alone.
        (None, None, [*RESET, ENDED], PANIC, "panic", "its guest panicked: sysrq triggered crash", True),
        (None, None, [*FAULT, ENDED], [], "triple_fault", "its guest ended in a triple fault", True),
        (None, None, ["bad", FAILED], PANIC, "failed", None, True),
        (None, None, [], PANIC, "unknown", None, True),
        # At an earlier supervisor's level the log does not say that it is stopping.
        (0, None, [], PANIC, "exited", None, True),
        # What a guest printed is no reason of an end that was not its own.
        (None, signal.SIGKILL, [], PANIC, "killed", None, True),
        (None, signal.SIGSEGV, RESET, RESTART, "killed", None, True),
        (1, None, ["Received KVM_EXIT_FAIL_ENTRY signal: 7 on cpu 0", *STOPPING], RESTART, "failed", None, True),
        (149, None, ["Shutting down VM after intercepting signal 7, code 2."], RESTART, "failed", None, True),
        (0, None, [], RESTART, "exited", None, True),
    ],
)  # fmt: skip
def test_an_end_is_told_by_who_came_to_it(
    code: int | None,
    number: int | None,
    log: list[str],
    console: list[str],
    reason: str,
    text: str | None,
    died: bool,
) -> None:
    found = ending(code, number, log, console)
    assert (found.reason, found.text, found.died) == (reason, text, died)


@given(st.integers(1, 64), st.lists(st.text()), st.lists(st.text()))
def test_no_guest_talks_itself_out_of_a_signal(number: int, log: list[str], console: list[str]) -> None:
    assert ending(None, number, log, console) == Ending("killed")
    assert ending(None, None, [], console) == Ending("unknown")


@pytest.mark.parametrize(
    ("console", "says"),
    [
        (HALTED, "halt"),
        (["reboot: Power down"], "halt"),
        (STAYS, "panic"),
        (RESTART, "reboot"),
        # The kernel is about to do something yet, or somebody else has printed since.
        (REBOOTING, None),
        ([*HALTED, "login:"], None),
        (PANIC, None),
        ([], None),
        (["what reboot: System halted is"], None),
        (["reboot: System halted, or is it"], None),
        (["[1] reboot: System halted"], None),
    ],
)
def test_words_stand_where_nothing_follows_them(console: list[str], says: str | None) -> None:
    found = standing_words(console)
    assert (found.says if found else None) == says
    if found is not None:
        assert found.line == console[-1]


def test_the_last_words_are_the_last_of_them() -> None:
    found = last_words([*RESTART, *PANIC, "and more"])
    assert found is not None
    assert (found.says, found.line) == ("panic", PANIC[0])
