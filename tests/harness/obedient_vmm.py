"""The embedded VMM, which does after every snapshot what a test says: Python that has the names `state` and `mem`."""

import os
import sys
from pathlib import Path

from supervisor.embedded import __main__ as program
from supervisor.embedded.config import SnapshotCreate
from supervisor.embedded.machine import Machine
from supervisor.system.isolated_python import isolated_command


def obedient_command(orders: Path) -> tuple[str, ...]:
    """Return the command of a VMM that looks for what it is told in the file `orders`, anew for each snapshot."""
    return isolated_command(f"from tests.harness.obedient_vmm import main; main({str(orders)!r})")


def main(orders: str) -> None:
    """Be the VMM."""
    create_snapshot = Machine.create_snapshot

    def obey(self: Machine, files: SnapshotCreate) -> None:
        create_snapshot(self, files)
        told = Path(orders)
        if told.exists():
            exec(told.read_text(), {"os": os, "state": files.snapshot_path, "mem": files.mem_file_path})

    Machine.create_snapshot = obey  # type: ignore[method-assign]
    program.leave(program.main(sys.argv[1:]))
