"""The header of a snapshot's state-file: which VMM wrote it, and in which version."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.embedded import SNAPSHOT_VERSION, state_file
from supervisor.embedded.refusals import MalformedError
from supervisor.guests.pagewalker import MIB
from supervisor.models import HypervisorName
from supervisor.rules.firecracker_versions import FAULTS, UNREADABLE_STATE
from supervisor.system.regular_files import open_regular

_MAGIC: Final = {0x0710_1984_8664_0000, 0x0710_1984_AAAA_0000}
"""Of x86_64 and aarch64: SNAPSHOT_MAGIC_ID in Firecracker's src/vmm/src/snapshot/mod.rs. The version follows it, as
bincode has strings: its length in eight bytes, and its letters; then the first field of MicrovmState, VmInfo's
mem_size_mib, in eight bytes (src/vmm/src/persist.rs, the same from 1.7 to 1.14)."""
_HEADER_BYTES: Final = 64
_UNREADABLE: Final = next(fault for fault in FAULTS if fault.name == UNREADABLE_STATE)
HEAD_BYTES: Final = state_file.MAX_BYTES + 1
"""As much as says that a file is too long to be the embedded VMM's."""


_READABLE_BEFORE: Final = 9
"""From this snapshot version on, Firecracker 1.15's, a state-file is bitcode, and only Firecracker reads its head."""


def tells_version(hypervisor: HypervisorName, snapshot_version: str) -> bool:
    """Return whether a state-file of this version has a head that can be read."""
    return hypervisor == "embedded" or int(snapshot_version.split(".")[0]) < _READABLE_BEFORE


@dataclass(frozen=True)
class StateHeader:
    """What a state-file tells of its machine; Firecracker's does not tell the number of vCPUs at its beginning."""

    hypervisor: HypervisorName
    snapshot_version: str
    vcpus: int | None = None
    size_bytes: int | None = None


def read_state_header(path: Path) -> StateHeader:
    """Return who wrote a state-file; raises OSError, and ValueError in one line where nobody that is known did."""
    with os.fdopen(open_regular(path), "rb") as file:
        return parse_state_header(file.read(HEAD_BYTES), path.name)


def parse_state_header(text: bytes, name: str) -> StateHeader:
    """Return the same of the first HEAD_BYTES of a state-file that is called `name`; raises ValueError. Pure."""
    if len(text) >= _HEADER_BYTES and struct.unpack_from("<Q", text)[0] in _MAGIC:
        # What follows it may be digits as well.
        (length,) = struct.unpack_from("<Q", text, 8)
        version = re.fullmatch(rb"[0-9]+\.[0-9]+\.[0-9]+", text[16 : 16 + length]) if length < _HEADER_BYTES else None
        if version is None:
            raise ValueError(f"{name} is Firecracker's, and has no version that can be read")
        if len(text) < 24 + length:
            raise ValueError(f"{name} is Firecracker's, and ends in its head")
        (mem_size_mib,) = struct.unpack_from("<Q", text, 16 + length)
        return StateHeader("firecracker", version[0].decode(), size_bytes=mem_size_mib * MIB)
    try:
        machine = state_file.parse(text)
    except MalformedError as error:
        firecracker = f"Firecracker's of a version before {_UNREADABLE.since}"
        raise ValueError(f"{name} is neither {firecracker}, nor the embedded VMM's: {error}") from error
    return StateHeader("embedded", SNAPSHOT_VERSION, machine.vcpu_count, machine.mem_size_mib * MIB)
