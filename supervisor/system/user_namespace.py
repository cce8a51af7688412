"""What uids say in a user namespace: user_namespaces(7)."""

from pathlib import Path
from typing import Final

_OVERFLOW_UID: Final = Path("/proc/sys/kernel/overflowuid")
_UID_MAP: Final = Path("/proc/self/uid_map")
_ALL: Final = 2**32 - 1
"""The uids that there are, -1 being none: of the initial namespace all are mapped."""


def may_be_anybody(uid: int) -> bool:
    """Return whether a uid is told in the place of all those that this namespace has none for."""
    try:
        overflow = int(_OVERFLOW_UID.read_text())
        mapped = sum(int(line.split()[2]) for line in _UID_MAP.read_text().splitlines())
    except (OSError, ValueError, IndexError):
        return False
    return uid == overflow and mapped < _ALL
