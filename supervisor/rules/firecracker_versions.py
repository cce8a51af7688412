"""What Firecracker's versions do wrong, or otherwise, of what is done with VMs here, and what is done about it. Pure.

It is what concerns snapshots, userfaultfd, balloon, vsock and the clock after a load, of Firecracker's CHANGELOG from
1.12.0 to 1.16.1 and of what was unreleased in August 2026; each row was looked up in the sources of the versions.
docs/firecracker-versions.md shows the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from supervisor.models import FaultAction

REVIEWED: Final = "1.16.1"
"""The newest version whose CHANGELOG was read."""
TESTED: Final = ("1.12.1",)
"""The versions that the tests have run; of all others only the sources were read."""
FIRST_SLOT_BYTES: Final = 3 << 30
"""Memory above these bytes is a KVM slot of its own: MMIO32_MEM_START in Firecracker's src/vmm/src/arch/x86_64/
layout.rs. In 1.12 that begins at 3328 MiB, and on aarch64 later: there it is safe to assume this."""

_VERSION: Final = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)([-+.].*)?")

Version = tuple[int, int, int, int]
"""Major, minor, patch; then 1 for a release, and 0 for what has a suffix, as 1.14.0-dev has, and comes before it."""


@dataclass(frozen=True)
class Machine:
    """What decides whether a fault concerns a VM; `devices` as supervisor/vmm/configuration.py names them."""

    size_bytes: int = 0
    devices: frozenset[str] = frozenset()
    loaded: bool = False
    """Whether its memory comes from a snapshot."""
    has_base: bool = False
    """Whether a Diff of it is put upon layers; the first one of a VM that was booted is upon memory of zeros."""
    tracked: bool = True
    """Whether its dirty pages are tracked."""


@dataclass(frozen=True)
class Fault:
    """A row: which versions, what they do, and what is done about it here.

    It came with `since`, and went with the first version of `fixed` in its own branch or a later one.
    """

    name: str
    since: str
    fixed: tuple[str, ...]
    what: str
    action: FaultAction
    doing: str
    source: str
    concerns: Callable[[Machine], bool] = field(repr=False, compare=False)

    def affects(self, version: str) -> bool:
        """Return whether a version has it; of a version that cannot be read that is assumed.

        One with a suffix is taken to have what came with its release, and what went with it.
        """
        present = parse(version)
        if present is None:
            return True
        if present[:3] < _known(self.since)[:3]:
            return False
        later = [fix for fix in map(_known, self.fixed) if fix[:2] >= present[:2]]
        return not self.fixed or (bool(later) and present < min(later))

    @property
    def versions(self) -> str:
        """The versions in words."""
        begin = "" if self.since == EVER else f"from {self.since} "
        return f"{begin}before {', '.join(self.fixed)}" if self.fixed else f"{begin}on" if begin else "all"


def parse(version: str) -> Version | None:
    """Return a version's numbers; None where it is none that can be read."""
    found = _VERSION.fullmatch(version)
    return (int(found[1]), int(found[2]), int(found[3]), 0 if found[4] else 1) if found else None


def faults(version: str | None) -> tuple[Fault, ...]:
    """Return what a version has; None is no version of Firecracker, and has nothing."""
    return () if version is None else tuple(fault for fault in FAULTS if fault.affects(version))


def faults_of(version: str | None, machine: Machine) -> tuple[Fault, ...]:
    """Return what concerns one machine of a version's faults."""
    return tuple(fault for fault in faults(version) if fault.concerns(machine))


def is_whole(version: str | None, machine: Machine) -> bool:
    """Return whether a snapshot has to be Full, because a Diff by this version would be wrong."""
    return any(fault.action == "full" for fault in faults_of(version, machine))


def has(version: str | None, name: str) -> Fault | None:
    """Return the fault of this name where a version has it."""
    return next((fault for fault in faults(version) if fault.name == name), None)


def sets_clock(version: str | None) -> bool:
    """Return whether a load by this version can set the guest's clock to the host's (CLOCK_FIELD)."""
    return version is not None and has(version, CLOCK_STAYS) is None


def notice(version: str | None) -> str | None:
    """Return what is to be said of a version that the table does not know for sure, or None."""
    if version is None:
        return None
    present = parse(version)
    if present is None:
        return f"{version} is no version that can be read: it is taken to have every known fault"
    if present[3] == 0:
        return f"{version} is no release: it is taken to have the faults that came or went with that release"
    if present > _known(REVIEWED):
        return f"{version} is newer than {REVIEWED}, the last whose changes were read"
    return None


def _known(version: str) -> Version:
    present = parse(version)
    assert present is not None, version
    return present


GIVING_BACK: Final = frozenset({"balloon", "memory-hotplug"})
"""Devices by which a guest gives memory back to the host."""


def _with(*devices: str) -> Callable[[Machine], bool]:
    return lambda machine: not machine.devices.isdisjoint(devices)


def _loaded(machine: Machine) -> bool:
    return machine.loaded


def _has_several_slots(machine: Machine) -> bool:
    return machine.size_bytes > FIRST_SLOT_BYTES or "memory-hotplug" in machine.devices


def _gives_back_upon_layers(machine: Machine) -> bool:
    return machine.has_base and not machine.devices.isdisjoint(GIVING_BACK)


def _is_untracked(machine: Machine) -> bool:
    return not machine.tracked


def _always(machine: Machine) -> bool:
    return True


EVER: Final = "0.0.0"
TOO_OLD: Final = "too-old"
OLD_TRACKING_FIELD: Final = "old-tracking-field"
HOTPLUG_SLOTS: Final = "hotplug-slots"
UNREADABLE_STATE: Final = "unreadable-state-file"
CLOCK_STAYS: Final = "clock-stays-behind"
CLOCK_FIELD: Final = "clock_realtime"
"""The field of a load by which KVM's clock is set forward to the host's: KVM_CLOCK_REALTIME (Linux 5.16)."""
NO_CLOCK: Final = "clock_realtime requested but not present in the snapshot state"
"""What a load says that has no clock to go by: the host that wrote the snapshot had no such time, or an older Linux
(KvmVmError in src/vmm/src/arch/x86_64/vm.rs of 1.16.0)."""

FAULTS: Final = (
    Fault(
        TOO_OLD, EVER, ("1.12.0",),
        "The handshake with a page server names no page_size, and can arrive empty",
        "refuse", "Firecracker before 1.12.0 is not run", "CHANGELOG 1.12.0, PRs 4948 and 5122", _always,
    ),
    Fault(
        "diff-of-several-slots", "1.14.0", ("1.14.2", "1.15.0"),
        "A Diff of a VM with several memory slots (above 3 GiB on x86_64, or memory-hotplug) is corrupt",
        "full", "Each snapshot of such a VM is Full", "CHANGELOG 1.14.2 and 1.15.0, PR 5705", _has_several_slots,
    ),
    Fault(
        "diff-misses-discards", EVER, (),
        "A Diff leaves out what a balloon, or memory unplugged, gave back: layers below bring its old content back",
        "full", "Each snapshot of a VM with such a device is Full, but for the first since its boot",
        "discard_range in src/vmm/src/vstate/memory.rs, unchanged in August 2026", _gives_back_upon_layers,
    ),
    Fault(
        "diff-by-mincore", "1.13.0", (),
        "Without dirty tracking a Diff has whatever mincore(2) finds, and misses what was swapped out",
        "full", "Each snapshot of a VM whose pages are not tracked is Full", "CHANGELOG 1.13.0, PR 5274", _is_untracked,
    ),
    Fault(
        OLD_TRACKING_FIELD, EVER, ("1.13.0",),
        "A load knows the tracking of dirty pages by the name enable_diff_snapshots only",
        "field", "enable_diff_snapshots is passed", "CHANGELOG 1.13.0, PR 5274", _loaded,
    ),
    Fault(
        HOTPLUG_SLOTS, "1.14.0", ("1.14.4", "1.15.1", "1.16.0"),
        "A guest keeps access to memory that was unplugged, or has none to memory that was plugged",
        "refuse", "A VM with memory-hotplug is neither booted nor restored",
        "CHANGELOG 1.14.4, 1.15.1 and 1.16.0, PR 5793", _with("memory-hotplug"),
    ),
    Fault(
        UNREADABLE_STATE, "1.15.0", (),
        "State-files are written by bitcode, and tell their version to Firecracker only",
        "refuse", "A snapshot made elsewhere is no image that can be used", "src/vmm/src/snapshot/mod.rs of 1.15.0",
        lambda machine: False,
    ),
    Fault(
        "async-drive-hangs", EVER, ("1.15.0",),
        "After a load a guest can wait for ever for a drive with io_engine Async that was busy at the snapshot",
        "warn", "It is said", "commit 67ba7a20692a, in 1.15.0", _with("async-drive"),
    ),
    Fault(
        "monotonic-clock-jumps", EVER, ("1.14.4", "1.15.1", "1.16.0"),
        "On Linux 5.16 or newer a load adds the time since the snapshot to the monotonic clock, if it is kvm-clock",
        "warn", "It is said", "CHANGELOG 1.14.4, 1.15.1 and 1.16.0, PR 5809", _loaded,
    ),
    Fault(
        CLOCK_STAYS, EVER, ("1.14.4", "1.15.1", "1.16.0"),
        "A load knows no clock_realtime: a guest's wall clock goes on from when the snapshot was written, unless it is "
        "kvm-clock",
        "warn", "It is said",
        "CHANGELOG 1.14.4, 1.15.1 and 1.16.0, PR 5809", _loaded,
    ),
    Fault(
        "watchdog-after-load", EVER, ("1.14.0",),
        "After a load the guest's watchdog can report a soft lockup",
        "warn", "It is said", "CHANGELOG 1.14.0, PR 5494", _loaded,
    ),
    Fault(
        "console-stops", EVER, ("1.16.0",),
        "A guest that was writing to its serial console at the snapshot can write no more after a load",
        "warn", "It is said", "CHANGELOG 1.16.0, PR 5764", _loaded,
    ),
    Fault(
        "generation-id-unbound", EVER, ("1.16.0",),
        "Linux before 6.10 does not bind the VM generation id: a clone does not reseed its random numbers",
        "warn", "It is said", "CHANGELOG 1.16.0, PR 5760", _loaded,
    ),
    Fault(
        "kvm-msrs-lost", EVER, ("1.16.0",),
        "Some of KVM's MSRs, those of asynchronous page faults among them, are missing after a load",
        "warn", "It is said", "CHANGELOG 1.16.0, PR 5738", _loaded,
    ),
    Fault(
        "supervisor-xstate-lost", EVER, (),
        "IA32_XSS is missing after a load: a guest that uses CET shadow stacks loses the state of its FPU",
        "warn", "It is said", "commit 490577590dc9, in no release in August 2026", _loaded,
    ),
    Fault(
        "vsock-data-repeated", EVER, ("1.14.0",),
        "A vsock device can repeat data to a guest with Linux 6.17 or newer",
        "warn", "It is said", "CHANGELOG 1.14.0, PR 5485", _with("vsock"),
    ),
    Fault(
        "vsock-ports-reused", EVER, ("1.15.0",),
        "After a load a vsock device gives local ports anew that connections of before have",
        "warn", "It is said", "CHANGELOG 1.15.0, PR 5688", _with("vsock"),
    ),
    Fault(
        "vsock-data-before-reset", EVER, ("1.16.0",),
        "After a load data can reach a guest before it has learned that its vsock connections are gone",
        "warn", "It is said", "CHANGELOG 1.16.0, PR 5882", _with("vsock"),
    ),
    Fault(
        "vsock-calls-time-out", "1.16.0", ("1.16.1",),
        "After a load a guest's vsock connections can time out for ever",
        "warn", "It is said", "CHANGELOG 1.16.1, PR 5958", _with("vsock"),
    ),
    Fault(
        "vsock-deaf-after-pause", "1.16.0", (),
        "A VM that was paused and runs on without a snapshot, as after one that failed, gets no more vsock connections",
        "warn", "It is said", "CHANGELOG, unreleased in August 2026, PR 6100", _with("vsock"),
    ),
    Fault(
        "balloon-statistics-stall", EVER, ("1.14.4", "1.15.1", "1.16.0"),
        "A guest can stall its VMM by the statistics of its balloon",
        "warn", "It is said", "CHANGELOG 1.14.4, 1.15.1 and 1.16.0, PR 5794", _with("balloon-statistics"),
    ),
)  # fmt: skip
"""Every row, the gravest first."""
