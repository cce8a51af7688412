"""How much an image may take of the host's disk while it is made: some is left for the records of all else."""

from pathlib import Path
from typing import Final

from supervisor.concurrency.progress import check
from supervisor.errors import InsufficientResourcesError
from supervisor.system import headroom

DISK_KEPT: Final = 64 << 20
"""Bytes of the disk that are left."""
_WITHOUT_END: Final = 1 << 62


class Room:
    """As much as anybody likes."""

    def left(self) -> int:
        """Return how many bytes more may be written."""
        return _WITHOUT_END

    def take(self, amount: int) -> None:
        """Raise InsufficientResourcesError where so many bytes more may not be written. Blocks on the disk.

        OperationCancelledError, too, as `check` raises it: who writes on is to end.
        """
        check()
        if amount > (left := self.left()):
            raise InsufficientResourcesError(self.refusal(left))

    def refusal(self, left: int) -> str:
        """Return why no more is written."""
        return f"it needs more than the {left >> 20} MiB that it may have"


class DiskRoom(Room):
    """What the file system of a directory has left but for DISK_KEPT, whoever else writes there."""

    def __init__(self, subject: str, directory: Path) -> None:
        self._subject = subject
        self._directory = directory

    def left(self) -> int:
        """Return how many bytes more may be written by now."""
        amount = headroom.disk(self._directory).amount
        return _WITHOUT_END if amount is None else max(amount - DISK_KEPT, 0)

    def refusal(self, left: int) -> str:
        """Return why no more is written."""
        return (
            f"{self._subject}: it needs more than the disk has left, of which {DISK_KEPT >> 20} MiB are kept for "
            "records; free some of it"
        )
