"""Whether a directory is held, as systemd-tmpfiles asks."""

import fcntl
import os
from pathlib import Path


def is_held(directory: Path) -> bool:
    """Return whether systemd-tmpfiles would pass by."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
