"""A state-file, open, before it is believed to be that of an instance's snapshot. It blocks on the disk."""

import os
from typing import Final

from supervisor.store.records import InstanceRecord, SnapshotFiles
from supervisor.vmm.state_file import HEAD_BYTES, parse_state_header, tells_version

STATE_BYTES: Final = 10 << 20
"""What Firecracker reads of a state-file at most: DESERIALIZATION_BYTES_LIMIT in its src/vmm/src/snapshot/mod.rs."""


def check_state(fd: int, record: InstanceRecord, files: SnapshotFiles) -> None:
    """Raise ValueError where an open file is not the state-file of this snapshot; OSError where it cannot be read.

    Of one whose head only Firecracker reads nothing is known but its size.
    """
    name, size = files.state, os.fstat(fd).st_size
    if size > STATE_BYTES:
        raise ValueError(f"{name} has {size} bytes, and no VMM loads more than {STATE_BYTES}")
    if size == 0:
        raise ValueError(f"{name} has 0 bytes")
    if not tells_version(record.hypervisor, files.snapshot_version):
        return
    header = parse_state_header(os.pread(fd, HEAD_BYTES, 0), name)
    told = header.hypervisor, header.snapshot_version
    if told != (record.hypervisor, files.snapshot_version):
        raise ValueError(
            f"{name} is of {' '.join(told)}, and its VMM is {record.hypervisor} with {files.snapshot_version}"
        )
    if header.size_bytes not in (None, record.size_bytes) or header.vcpus not in (None, record.vcpus):
        raise ValueError(f"{name} is of another machine")
