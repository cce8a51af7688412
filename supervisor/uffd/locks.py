"""The directories of a page server's files, held against systemd-tmpfiles while it serves; standard library only.

A lock of flock(2) is of the open file description: whoever has handed it over may close its own descriptor, and end.
"""

import os


class Locks:
    """Descriptors of directories that are held."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}

    def keep(self, descriptor: int) -> None:
        """Keep a duplicate, unless that directory is held already; guests are served whether or not it can be."""
        try:
            status = os.fstat(descriptor)
            self._held.setdefault((status.st_dev, status.st_ino), -1)
            if self._held[status.st_dev, status.st_ino] < 0:
                self._held[status.st_dev, status.st_ino] = os.dup(descriptor)
        except OSError:
            return

    def close(self) -> None:
        """Let go of them."""
        for descriptor in self._held.values():
            if descriptor >= 0:
                os.close(descriptor)
        self._held.clear()
