"""The supervisor's log: where it goes, and what is in it."""

import atexit
import errno
import logging
import os
from pathlib import Path
from typing import Final, TextIO

from supervisor.daemon.repeated_lines import RepeatedLines
from supervisor.settings import Settings
from supervisor.system.log_records import Formatter
from supervisor.system.same_file import status_at

MODE: Final = 0o640
"""Of a log file that is made: names, pids and uids are in it."""


def log_to(settings: Settings) -> None:
    """Log what is ours from the level of the settings on, and of libraries what is wrong: some tell of each event.

    Raises OSError.
    """
    # A disk that is full would have each line that is lost cost a traceback.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(_appended(settings.log_file) if settings.log_file else None)
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    repeated = RepeatedLines(handler)
    handler.addFilter(repeated)
    atexit.register(repeated.tell, all_of_them=True)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(max(level, logging.WARNING))
    logging.getLogger("supervisor").setLevel(level)
    logging.captureWarnings(True)


def _appended(path: Path) -> TextIO:
    """Open a log file to append to it; raises OSError, also where it is somebody else's, or a link of his."""
    found = status_at(path)
    if found is not None and found.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, f"it belongs to uid {found.st_uid}; name another with --log-file", str(path))
    # A FIFO that nobody reads is waited for without O_NONBLOCK: open(2).
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, MODE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        why = "it is a FIFO or socket that nobody reads; name a file with --log-file"
        raise OSError(errno.ENXIO, why, str(path)) from error
    os.set_blocking(descriptor, True)
    return os.fdopen(descriptor, "a", encoding="utf-8")
