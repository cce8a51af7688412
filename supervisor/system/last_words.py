"""What a program says of an exception that nobody catches: the interpreter would print its text as it is."""

import os
import sys
import time
from types import TracebackType
from typing import Any

from supervisor.system.log_text import indented, one_line


def escape_tracebacks() -> None:
    """Tell of what nobody catches, in any thread or destructor, as a log's record.

    Threads are heeded where `threading` is imported by then.
    """
    sys.excepthook = _tell
    sys.unraisablehook = _tell_unraisable
    if "threading" in sys.modules:
        import threading

        threading.excepthook = _tell_of_thread


def print_error(line: str) -> None:
    """Print one line on standard error, whatever is in it; nobody may be there to read it."""
    _write(one_line(line))


def _tell(
    kind: type[BaseException], error: BaseException | None, at: TracebackType | None, where: str = "the main thread"
) -> None:
    head = one_line(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} nobody caught what went wrong in {where}:")
    _write(f"{head}\n{indented(_formatted(kind, error, at).rstrip())}")


def _formatted(kind: type[BaseException], error: BaseException | None, at: TracebackType | None) -> str:
    try:
        # Not worth its import to a program that goes well.
        import traceback
    except ImportError:
        # Of a page server that may not read Python's library any more.
        lines = [f"{kind.__name__}: {error}"]
        while at is not None:
            lines.append(f"  {at.tb_frame.f_code.co_filename}, line {at.tb_lineno}, in {at.tb_frame.f_code.co_name}")
            at = at.tb_next
        return "\n".join(lines)
    return "".join(traceback.format_exception(kind, error, at))


def _tell_unraisable(unraisable: Any) -> None:
    where = f"{unraisable.err_msg or 'a destructor'} ({unraisable.object!r})"
    _tell(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback, where)


def _tell_of_thread(failed: Any) -> None:
    if failed.exc_type is not SystemExit:
        name = failed.thread.name if failed.thread is not None else "that is gone"
        _tell(failed.exc_type, failed.exc_value, failed.exc_traceback, f"thread {name}")


def _write(text: str) -> None:
    # By the descriptor, which is there when the interpreter ends.
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        return
