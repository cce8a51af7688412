"""Firecracker's releases, and what each is known to do wrong: written down from its CHANGELOG, not from the table."""

from typing import Final

from supervisor.rules.firecracker_versions import FIRST_SLOT_BYTES, Machine

RELEASES: Final = (
    "1.11.0", "1.12.0", "1.12.1", "1.13.0", "1.13.1", "1.13.2", "1.14.0", "1.14.1", "1.14.2", "1.14.3", "1.14.4",
    "1.15.0", "1.15.1", "1.16.0", "1.16.1", "1.17.0", "2.0.0",
)  # fmt: skip
AFFECTED: Final = {
    "too-old": ["1.11.0"],
    "diff-of-several-slots": ["1.14.0", "1.14.1"],
    "diff-misses-discards": list(RELEASES),
    "diff-by-mincore": list(RELEASES[3:]),
    "old-tracking-field": ["1.11.0", "1.12.0", "1.12.1"],
    "hotplug-slots": ["1.14.0", "1.14.1", "1.14.2", "1.14.3", "1.15.0"],
    "unreadable-state-file": list(RELEASES[11:]),
    "async-drive-hangs": list(RELEASES[:11]),
    "monotonic-clock-jumps": [*RELEASES[:10], "1.15.0"],
    "clock-stays-behind": [*RELEASES[:10], "1.15.0"],
    "watchdog-after-load": list(RELEASES[:6]),
    "console-stops": list(RELEASES[:13]),
    "generation-id-unbound": list(RELEASES[:13]),
    "kvm-msrs-lost": list(RELEASES[:13]),
    "supervisor-xstate-lost": list(RELEASES),
    "vsock-data-repeated": list(RELEASES[:6]),
    "vsock-ports-reused": list(RELEASES[:11]),
    "vsock-data-before-reset": list(RELEASES[:13]),
    "vsock-calls-time-out": ["1.16.0"],
    "vsock-deaf-after-pause": list(RELEASES[13:]),
    "balloon-statistics-stall": [*RELEASES[:10], "1.15.0"],
}
_CONCERNED: Final = {
    "too-old": Machine(),
    "diff-of-several-slots": Machine(size_bytes=FIRST_SLOT_BYTES + 1),
    "diff-misses-discards": Machine(devices=frozenset({"balloon"}), has_base=True),
    "diff-by-mincore": Machine(tracked=False),
    "hotplug-slots": Machine(devices=frozenset({"memory-hotplug"})),
    "async-drive-hangs": Machine(devices=frozenset({"async-drive"})),
    "balloon-statistics-stall": Machine(devices=frozenset({"balloon-statistics"})),
}
_WITH_VSOCK: Final = Machine(devices=frozenset({"vsock"}))


def known(version: str) -> list[str]:
    """Return the names of what a release does wrong, in the table's order."""
    return [name for name, releases in AFFECTED.items() if version in releases]


def least_machine(name: str) -> Machine:
    """Return the least machine that a fault concerns."""
    return _CONCERNED.get(name, _WITH_VSOCK if name.startswith("vsock-") else Machine(loaded=True))
