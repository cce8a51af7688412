"""What jobs wait by: each change in a directory, and each event of the supervisor."""

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.system.watching import EVENTS_BYTES, IN_CREATE, IN_MODIFY, IN_MOVED, add_watch, inotify
from tests.harness.unix_http import UnixConnection

LOOK_AGAIN: Final = 1.0
"""Seconds without a change after which what no file tells of is looked at."""


def changes(directory: Path) -> Iterator[bool]:
    """Yield at once, and then whenever something in a directory has changed, or nothing has for LOOK_AGAIN: whether."""
    watch = inotify()
    try:
        add_watch(watch, directory, IN_MODIFY | IN_CREATE | IN_MOVED)
        yield True
        while True:
            readable, _, _ = select.select([watch], [], [], LOOK_AGAIN)
            if readable:
                os.read(watch, EVENTS_BYTES)
            yield bool(readable)
    finally:
        os.close(watch)


def events(supervisor: Path, silence: float) -> Iterator[None]:
    """Yield at once, and then at each event that the supervisor at a socket tells: two a second at least.

    TimeoutError where it tells nothing for `silence` seconds; ends with it.
    """
    connection = UnixConnection(supervisor, silence)
    try:
        connection.request("GET", "/events")
        for line in connection.getresponse():
            # The first has all that there is.
            if line.startswith(b"data:"):
                yield
    finally:
        connection.close()
