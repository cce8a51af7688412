"""What a path leads to, and whether that is still what is held; no link is followed. Standard library only."""

import os
from pathlib import Path


def status_at(path: Path) -> os.stat_result | None:
    """Return the status of what is at a path, whatever it is; None where there is nothing, or it cannot be told."""
    try:
        return path.lstat()
    except OSError:
        return None


def is_at(path: Path, held: os.stat_result | None) -> bool:
    """Return whether the file, directory or socket of this status is at a path."""
    found = status_at(path)
    return found is not None and held is not None and os.path.samestat(found, held)
