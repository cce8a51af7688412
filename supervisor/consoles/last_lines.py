"""The last lines of a log, as text that is no longer than somebody may read; standard library only."""

from pathlib import Path
from typing import Final

from supervisor.consoles.reading import LogReader
from supervisor.system.log_text import one_line

TAIL_BYTES: Final = 16 << 10
"""A panic of Linux prints some 4 KiB behind its first line."""
LINE_LENGTH: Final = 200


def last_lines(path: Path, since: int = 0, most: int = TAIL_BYTES) -> list[str]:
    """Return the lines of the last bytes, at most `most`, that were written after the position `since`.

    Empty ones are left out, and so are all where the log cannot be read. Blocks on the disk.
    """
    reader = LogReader(path)
    try:
        data = reader.tail(most)
    except OSError:
        return []
    finally:
        reader.release()
    data = data[-max(reader.position - since, 0) :] if reader.position > since else b""
    lines = (line.strip() for line in data.decode(errors="replace").split("\n"))
    return [one_line(line[:LINE_LENGTH]) for line in lines if line]
