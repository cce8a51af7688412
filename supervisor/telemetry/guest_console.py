"""What pagewalker prints on its console, read as it grows."""

import re
from pathlib import Path

from supervisor.consoles.reading import LogReader
from supervisor.models import Guest

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


class GuestConsole:
    """A console from `position` (bytes of all that was ever printed) on: where the present boot or restore begins."""

    def __init__(self, path: Path, position: int) -> None:
        self.guest = Guest()
        self._reader = LogReader(path, position)
        self._size = -1
        self._partial = b""

    def read(self) -> Guest:
        """Return what the guest has printed so far, as far as it can be read now; blocks on the disk."""
        try:
            size = self._reader.path.stat().st_size
            if size == self._size:
                return self.guest
            skipped, data, anew = self._reader.read(READ_LIMIT)
            self._reader.release()
        except OSError:
            return self.guest
        self._size = size if len(data) < READ_LIMIT else -1
        *lines, self._partial = ((b"" if skipped or anew else self._partial) + data).split(b"\n")
        self._partial = self._partial[-READ_LIMIT:]
        for line in lines:
            self.guest = advance(self.guest, line)
        return self.guest
