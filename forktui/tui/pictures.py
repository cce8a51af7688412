"""Where a screenshot goes."""

import errno
import os
import time
from itertools import count
from pathlib import Path

from forktui.tui.choices import untrusted
from supervisor.settings import default_state_dir
from supervisor.system.regular_files import shown


def picture_file(svg: str) -> str:
    """Write a picture, in the working directory or else with what is kept, and return its path as text.

    It has a name of its own: nothing is overwritten. Raises OSError where neither can be written.
    """
    try:
        return shown(_written(Path.cwd(), svg))
    except OSError:
        folder = default_state_dir()
        if (found := untrusted(folder)) is not None:
            raise OSError(errno.EACCES, found, str(folder)) from None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return shown(_written(folder, svg))


def _written(folder: Path, svg: str) -> Path:
    begin = folder / time.strftime("forktui-%Y%m%d-%H%M%S")
    for number in count(1):
        file = Path(f"{begin}.svg" if number == 1 else f"{begin}-{number}.svg")
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123
                stream.write(svg)
        except OSError:
            file.unlink(missing_ok=True)
            raise
        return file
    raise AssertionError("numbers have no end")
