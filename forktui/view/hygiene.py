"""What a clone has in common with what it was loaded from, and what is different, as far as anybody can tell. Pure.

Of a snapshot its VMM makes the machine that was written: nothing in it is another by itself but the VM generation id,
which Firecracker writes anew at each load (docs/snapshotting/random-for-clones.md), and what is on the host.
"""

from collections.abc import Sequence
from typing import Final

from forktui.text.quantities import names
from forktui.view.panels import Fact
from forktui.view.styled_lines import Line
from forktui.view.subject import Subject
from supervisor.models import Instance, MachineInfo

_ABOUT_CLOCKS: Final = ("clock",)
_ABOUT_VSOCK: Final = ("vsock",)


def is_clone(instance: Instance) -> bool:
    """Whether its memory came, or is to come, from a snapshot of another time."""
    steps = {phase.name for phase in instance.phases}
    return "load" in steps or (instance.fork_kind is not None and "boot" not in steps)


def notice(subject: Subject) -> list[Fact]:
    """Whether the guest knows that it is a clone; a guest that prints nothing about it cannot be asked."""
    guest = subject.counters.guest
    if subject.instance.memory_backend is None or subject.instance.vmm_pid is None or guest is None:
        return []
    if guest.restored:
        return [Fact("hygiene", [("the guest saw its new VM generation id", "plain")])]
    return [Fact("hygiene", [("the guest has not noticed its restore", "warning")])]


def hygiene(subject: Subject) -> list[Fact]:
    """All of it, one thing a line."""
    instance = subject.instance
    if not is_clone(instance):
        return []
    told = subject.machine
    return [
        Fact("VM gen id", _generation(subject)),
        Fact("clock", _clock(instance)),
        Fact("memory", _same("keys, tokens, random state, open connections: as they were in the snapshot")),
        Fact("ids", _same("machine-id, host name, ssh keys: as its source's, in memory and on disk")),
        *(_devices(told, instance) if told is not None else [Fact("devices", [("being asked for", "muted")])]),
    ]


def _generation(subject: Subject) -> Line:
    guest = subject.counters.guest
    line: Line = [("different", "running"), (": new at each load", "plain")]
    if guest is None:
        line.append(("; whether the guest saw it nobody knows, it prints nothing about that", "muted"))
        return [*line, *_tell("Linux logs `crng reseeded due to virtual machine fork`")]
    if guest.restored:
        return [*line, ("; the guest saw it", "plain")]
    return [*line, ("; the guest has not noticed it", "warning")]


def _devices(machine: MachineInfo, instance: Instance) -> list[Fact]:
    if not machine.configured:
        return [Fact("devices", [("not known: its image is a snapshot without vm.json", "muted")])]
    return [
        Fact("network", _network(machine)),
        Fact("MAC", _interfaces(machine)),
        Fact("vsock", _vsock(machine, instance)),
        Fact("disks", _disks(machine)),
    ]


def _interfaces(machine: MachineInfo) -> Line:
    if not machine.interfaces:
        return [("it has no network interface", "muted")]
    told = [f"{one.id} {one.mac or 'made up by its VMM'} on {one.host_device or '?'}" for one in machine.interfaces]
    line: Line = [("same", "warning"), (f": {'; '.join(told)}", "plain"), (", one at a time on a network", "muted")]
    return [*line, *_tell("`ip link` in both")]


def _network(machine: MachineInfo) -> Line:
    if not machine.interfaces:
        return [("it has none", "muted")]
    line: Line = [("same", "warning"), (": addresses, routes and connections as they were in the snapshot", "plain")]
    return [*line, *_tell("`ip addr` in both")]


def _vsock(machine: MachineInfo, instance: Instance) -> Line:
    if machine.vsock_socket is None:
        return [("it has no vsock device", "muted")]
    address = "address" if machine.vsock_cid is None else f"CID {machine.vsock_cid}"
    line: Line = [("same", "warning"), (f" {address}, ", "plain"), ("different", "running")]
    line += [(f" socket {machine.directory}/{machine.vsock_socket}", "plain"), *_known(instance, _ABOUT_VSOCK)]
    return [*line, *_tell("connections of before are reset in the guest")]


def _disks(machine: MachineInfo) -> Line:
    own = [one.id for one in machine.disks if not one.read_only]
    told = [one.id for one in machine.disks if one.tells]
    others = [one.id for one in machine.disks if one.read_only and not one.tells]
    if not own and not others and not told:
        return [("it has none", "muted")]
    line: Line = []
    if own:
        line += [("different", "running"), (f": {names(own, shown=4)}, each a copy of the source's", "plain")]
    if told:
        line += [("; " if own else "", "plain"), ("different", "running")]
        line += [(f": {names(told, shown=4)}, which tells it who it is", "plain")]
    if others:
        line += [
            ("; " if own or told else "", "plain"),
            ("same", "plain"),
            (f": {names(others, shown=4)}, read-only", "plain"),
        ]
    return line


def _clock(instance: Instance) -> Line:
    seen = _tell("`date` in the guest and on the host")
    if instance.clock_set:
        line: Line = [("different", "running"), (": its VMM has set it to the host's (clock_realtime)", "plain")]
        return [*line, (", if it is kvm-clock; untested here", "muted"), *_known(instance, _ABOUT_CLOCKS), *seen]
    since = "the wall clock goes on from when the snapshot was written, until the guest sets it"
    how: Line = [("; docs/linux-guests.md has what does", "muted")]
    return [("behind", "warning"), (f": {since}", "plain"), *_known(instance, _ABOUT_CLOCKS), *how, *seen]


def _tell(how: str) -> Line:
    """How one can see it."""
    return [(f"; seen by: {how}", "muted")]


def _known(instance: Instance, words: Sequence[str]) -> Line:
    found = [fault.name for fault in instance.known_faults if any(word in fault.name for word in words)]
    return [(f"; known of {instance.firecracker_version}: {', '.join(found)}", "warning")] if found else []


def _same(what: str) -> Line:
    return [("same", "warning"), (f": {what}", "plain")]
