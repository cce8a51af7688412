"""What the operator is told of a fault of the dashboard itself: one line, and where the details are."""

import traceback
from importlib import metadata
from typing import Final

from textual.worker import WorkerFailed

from forktui.tui.choices import untrusted, write_whole
from supervisor.programs import say
from supervisor.settings import default_state_dir
from supervisor.system.log_text import escaped, indented

FILE_NAME: Final = "fault.txt"
"""One is kept, the last."""


def told(fault: BaseException) -> None:
    """Say on standard error that the dashboard has failed, and of what; the traceback goes to a file, or there too."""
    cause = fault.error if isinstance(fault, WorkerFailed) else fault
    what = f"forktui: the dashboard has failed: {type(cause).__name__}: {cause}"
    details = f"forktui {metadata.version('forktui')}\n{indented(''.join(traceback.format_exception(cause)))}\n"
    file = default_state_dir() / FILE_NAME
    try:
        if (found := untrusted(file)) is not None:
            raise PermissionError(0, found)
        write_whole(file, details)
    except OSError as error:
        say(f"{what}; the details cannot be kept: {error.strerror}")
        for line in details.splitlines():
            say(escaped(line))
    else:
        say(f"{what}; the VMs go on, and the details are in {file}")
