"""Text of a log: what others wrote makes no record of its own, and nothing that a terminal obeys.

Standard library only, and little of it: page servers and VMMs log too.
"""

from typing import Final

LIMIT: Final = 4000
"""Characters of one line that are written."""
TRACEBACK_LIMIT: Final = 32_000
"""Characters of a traceback that are written: half of them of its beginning, half of its end."""

_INDENT: Final = "    "


def one_line(text: str) -> str:
    """Return `text` with everything escaped that is not printable: ends of lines, controls, bidi controls, surrogates.

    What is longer than LIMIT is cut, and its length told.
    """
    line = escaped(text[: LIMIT + 1])
    return line if len(line) <= LIMIT else f"{line[:LIMIT]}... ({len(text)} characters)"


def escaped(text: str) -> str:
    """Return all of `text`, escaped as `one_line` does."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def indented(traceback: str) -> str:
    """Return the lines of a traceback, each as `one_line` has it and none at the margin, where a record begins."""
    if len(traceback) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        traceback = f"{traceback[:half]}\n... ({len(traceback)} characters)\n{traceback[-half:]}"
    return "\n".join(f"{_INDENT}{one_line(line)}" for line in traceback.split("\n"))
