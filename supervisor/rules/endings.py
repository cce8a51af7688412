"""Why a VM ended, by what its VMM's process, its log and its guest's console tell. Pure.

The kernel tells how the process ended, the log what the VMM saw: those are believed. A console has what a guest chose
to print: it says which of its own ends a guest that has ended itself has come to, and nothing else is made of it.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from supervisor.models import ExitReason, GuestSays, LastWords

REASONS: Final[dict[ExitReason, str]] = {
    "panic": "its guest panicked",
    "reboot": "its guest rebooted, which ends a microVM",
    "shutdown": "its guest shut its machine down",
    "triple_fault": "its guest ended in a triple fault",
    "reset": "its guest reset its machine, and its console does not say why",
}
"""The ends that a guest comes to by itself."""
ASKED_FOR: Final[frozenset[ExitReason]] = frozenset({"stopped", "reboot", "shutdown"})
"""Ends that somebody wanted: whoever stopped the VM, or its own guest. Others are deaths."""

# A guest's reset by its keyboard controller is in no line of its own (src/vmm/src/devices/legacy/i8042.rs): this one
# follows whatever the guest did, and none that the VMM ends for (Vmm::stop in its src/vmm/src/lib.rs).
_STOPPING: Final = "Vmm is stopping."
# An error of the VMM's, and exit code 1, from 1.15 on (src/vmm/src/arch/x86_64/vcpu.rs).
_TRIPLE_FAULTS: Final = ("Received KVM_EXIT_SHUTDOWN signal", "Unexpected exit reason on vcpu run: Shutdown")
# On aarch64: KVM_SYSTEM_EVENT_SHUTDOWN and _RESET of include/uapi/linux/kvm.h.
_SYSTEM_EVENTS: Final[dict[str, ExitReason]] = {
    "Received KVM_SYSTEM_EVENT: type: 1": "shutdown",
    "Received KVM_SYSTEM_EVENT: type: 2": "reboot",
}
_EXITING: Final = re.compile(r"exiting (?:successfully|with error)\. exit_code=(\d{1,3})\Z")

# What printk(9) may put before a line: the time, and with CONFIG_PRINTK_CALLER who printed it.
_PRINTED: Final = r"(?:\[ *\d+\.\d+\](?:\[ *[CT]\d+\])? )?"
_PANIC: Final = re.compile(rf"{_PRINTED}(?:---\[ end )?Kernel panic - not syncing: (.*?)(?: \]---)?\Z")
# kernel/reboot.c, and drivers/tty/sysrq.c for what `echo b >/proc/sysrq-trigger` does.
_LINES: Final[tuple[tuple[GuestSays, re.Pattern[str]], ...]] = (
    ("panic", _PANIC),
    ("reboot", re.compile(rf"{_PRINTED}(?:reboot: (?:Restarting system|machine restart)|sysrq: Resetting)")),
    ("halt", re.compile(rf"{_PRINTED}reboot: (?:System halted|Power down)\Z")),
)


class Ending(NamedTuple):
    """Why a VM ended."""

    reason: ExitReason
    text: str | None = None
    """The same in words; None where how the process ended says it."""

    @property
    def died(self) -> bool:
        """Whether nobody wanted that."""
        return self.reason not in ASKED_FOR


def ending(code: int | None, signal: int | None, log: Sequence[str], console: Sequence[str]) -> Ending:
    """Return why a VM ended.

    `code` or `signal` is the process's, neither where that is another's to know; `log` has the VMM's last messages and
    `console` the guest's last lines, both in order.
    """
    if signal is not None:
        return Ending("killed")
    if code is None:
        code = next((int(found[1]) for found in map(_EXITING.search, reversed(log)) if found), None)
    by_itself = _by_itself(log)
    if by_itself is not None and (code == 0 or by_itself == "triple_fault"):
        return _told_by_guest(by_itself, last_words(console))
    if code is None:
        return Ending("unknown")
    return Ending("exited" if code == 0 else "failed")


def last_words(console: Sequence[str]) -> LastWords | None:
    """Return the last line by which Linux tells of its end, and what that is; None where there is none."""
    for line in reversed(console):
        for says, pattern in _LINES:
            if pattern.match(line):
                return LastWords(says=says, line=line)
    return None


def standing_words(console: Sequence[str]) -> LastWords | None:
    """Return the same where nothing follows it: words of a guest that has ended, though its VM goes on.

    After a panic's last line nothing more comes, unless the kernel is about to reboot.
    """
    return last_words(console[-1:])


def _by_itself(log: Sequence[str]) -> ExitReason | None:
    for message in reversed(log):
        if message.startswith(_TRIPLE_FAULTS):
            return "triple_fault"
        for event, reason in _SYSTEM_EVENTS.items():
            if message.startswith(event):
                return reason
    return "reset" if _STOPPING in log else None


def _told_by_guest(by_itself: ExitReason, said: LastWords | None) -> Ending:
    """Return an end that the guest came to, and what its console says of it."""
    if said is None or said.says == "halt":
        return Ending(by_itself, REASONS[by_itself])
    if said.says == "panic":
        found = _PANIC.match(said.line)
        return Ending("panic", f"{REASONS['panic']}: {found[1] if found else ''}")
    return Ending("reboot", REASONS["reboot"])
