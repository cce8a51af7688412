"""The kernel command line of an image that is built, and why each word is there. Pure."""

from collections.abc import Iterator
from typing import Final

from supervisor.models import BootWord
from supervisor.rules.firecracker_versions import parse

_KVMAPF_SINCE: Final = (1, 16, 0)
_PAUSE_TOLD_SINCE: Final = (1, 14, 0)
"""KVM_KVMCLOCK_CTRL before a resume, by which a guest's watchdogs know that it was paused (PR 5494)."""


def boot_words(*, version: str | None, root: str | None, extra: str = "") -> tuple[BootWord, ...]:
    """Return the words for the Firecracker of that version; `root` is how an initrd of others is to find its root."""
    return tuple(_words(version, root, extra))


def _words(version: str | None, root: str | None, extra: str) -> Iterator[BootWord]:
    def word(text: str, why: str) -> BootWord:
        return BootWord(word=text, why=why)

    yield word("console=ttyS0", "what the guest prints is what `forktui logs` shows")
    yield word(
        "reboot=k", "a reboot is asked of the keyboard controller, which is how Firecracker hears of a guest's end"
    )
    yield word("panic=1", "a guest that panics ends after a second, and does not hang as a VM that seems to run")
    yield word("pci=off", "there is no PCI bus to look for")
    yield word("i8042.noaux", "there is no mouse to wait for, half a second at each boot")
    yield word("i8042.nomux", "as above")
    yield word("i8042.dumbkbd", "the keyboard controller has no keyboard")
    yield word(
        "random.trust_cpu=on", "random numbers are there at once, from the processor; nothing else fills the pool"
    )
    if _before(version, _PAUSE_TOLD_SINCE):
        yield word(
            "nosoftlockup",
            "a load of Firecracker before 1.14 does not say that the guest was paused, and sets its clock forward: the "
            "kernel would report a CPU that was stuck for as long",
        )
        yield word("rcupdate.rcu_cpu_stall_suppress=1", "as above, of RCU")
    if _before(version, _KVMAPF_SINCE):
        yield word(
            "no-kvmapf",
            "a snapshot of Firecracker before 1.16 does not keep what asynchronous page faults are at: a fork would "
            "wait for a page that nobody tells it of",
        )
    if root is not None:
        yield word("root=/dev/vda", "the initrd mounts the image's root from there")
        yield word(root, "read-only: all forks share it" if root == "ro" else "each fork has a copy of its own")
    for one in extra.split():
        yield word(one, "given with --boot-args")


def _before(version: str | None, since: tuple[int, int, int]) -> bool:
    """Return whether a version is before another; one that is not known may be."""
    found = parse(version) if version else None
    return found is None or found[:3] < since
