"""The state-file of a snapshot: the machine and the CPU's registers as one small JSON object."""

import json
import os
from typing import Any, Final, NamedTuple

from supervisor.embedded import SNAPSHOT_VERSION, VERSION
from supervisor.embedded.config import MAX_MEM_SIZE_MIB, MAX_VCPUS, Balloon, balloon, parse_json
from supervisor.embedded.refusals import MalformedError
from supervisor.embedded.walker import Registers, parse_registers
from supervisor.guests.pagewalker import MIB, ballast_end

MAGIC: Final = "forktui embedded VMM state"
MAX_BYTES: Final = 1 << 16
"""A file that is larger is another one; a mem-file given by mistake is not read whole."""


class State(NamedTuple):
    """What a snapshot holds besides memory."""

    vcpu_count: int
    mem_size_mib: int
    registers: Registers
    balloon: Balloon | None = None


def save(path: str, state: State) -> None:
    """Write the file, durably; raises OSError."""
    document = {
        "magic": MAGIC,
        "version": SNAPSHOT_VERSION,
        "vmm_version": VERSION,
        "vcpu_count": state.vcpu_count,
        "mem_size_mib": state.mem_size_mib,
        "registers": state.registers._asdict(),
        "balloon": None if state.balloon is None else state.balloon._asdict(),
    }
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(fd)


def load(path: str) -> State:
    """Return what `save` wrote; raises OSError, or MalformedError for anything else."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        text = file.read(MAX_BYTES + 1)
    return parse(text)


def parse(text: bytes) -> State:
    """Return what a state-file's bytes say; raises MalformedError. Pure."""
    document = _document(text)
    if document.get("version") != SNAPSHOT_VERSION:
        raise MalformedError(
            f"it has version {document.get('version')!r}, and this VMM loads {SNAPSHOT_VERSION}; "
            "make the snapshot anew with this VMM"
        )
    vcpu_count, mem_size_mib = document.get("vcpu_count"), document.get("mem_size_mib")
    if type(vcpu_count) is not int or not 1 <= vcpu_count <= MAX_VCPUS:
        raise MalformedError(f"its vcpu_count is not 1 to {MAX_VCPUS}")
    if type(mem_size_mib) is not int or not 1 <= mem_size_mib <= MAX_MEM_SIZE_MIB:
        raise MalformedError(f"its mem_size_mib is not 1 to {MAX_MEM_SIZE_MIB}")
    registers = parse_registers(document.get("registers"))
    if not registers.balloon_mib <= registers.balloon_peak_mib <= ballast_end(mem_size_mib * MIB) // MIB:
        raise MalformedError("the registers have a balloon that is larger than it can be")
    device = document.get("balloon")
    return State(vcpu_count, mem_size_mib, registers, None if device is None else balloon(device))


def _document(text: bytes) -> dict[str, Any]:
    if len(text) <= MAX_BYTES:
        try:
            document = parse_json(text)
        except MalformedError:
            document = None
        if isinstance(document, dict) and document.get("magic") == MAGIC:
            return document
    raise MalformedError("it is not a state-file of the embedded VMM; load it with the VMM that made it")
