"""What pagewalker prints on its console, read as it grows."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.models import Guest
from supervisor.system.regular_files import open_regular

READ_LIMIT = 1 << 20
"""How many bytes of a console one call reads, so that a guest that prints for ever holds nobody up."""

_LINE = re.compile(rb"^(ready|restored|done|pass (\d{1,18})|CORRUPT (0x[0-9a-f]+)|error: (.{1,200}))\s*$")


def advance(guest: Guest, line: bytes) -> Guest:
    """Return what is known of the guest after one more console line. Lines that are not pagewalker's change nothing."""
    match = _LINE.match(line)
    if match is None:
        return guest
    word, passes, address, reason = match.groups()
    if address or reason:
        return guest.model_copy(update={"corrupt": (address or reason).decode("ascii", "replace")})
    if passes:
        return guest.model_copy(update={"ready": True, "passes": int(passes)})
    if word == b"restored":
        return Guest(ready=True, restored=True)
    if word == b"done":
        return guest.model_copy(update={"done": True})
    return guest.model_copy(update={"ready": True})


@dataclass
class GuestConsole:
    """One console.log from `offset` (bytes) on: where the present boot or restore begins."""

    path: Path
    offset: int
    guest: Guest = field(default_factory=Guest)
    _partial: bytes = b""

    def read(self) -> Guest:
        """Return what the guest has printed so far, as far as it can be read now; blocks on the disk."""
        try:
            if self.path.stat().st_size <= self.offset:
                return self.guest
            with os.fdopen(open_regular(self.path), "rb") as file:
                file.seek(self.offset)
                data = file.read(READ_LIMIT)
        except OSError:
            return self.guest
        self.offset += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[-READ_LIMIT:]
        for line in lines:
            self.guest = advance(self.guest, line)
        return self.guest
