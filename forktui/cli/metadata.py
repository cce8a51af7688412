"""`--metadata`: what the guests of new instances are told."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from forktui.actions.metadata import joined
from forktui.cli.command import UsageError
from supervisor.system.regular_files import read_regular

LARGEST_FILE: Final = 1 << 20
"""Bytes; the supervisor says how many it takes."""


def metadata_option(parser: ArgumentParser) -> None:
    """Take what a guest is told, as often as there is something."""
    parser.add_argument(
        "--metadata",
        action="append",
        metavar="JSON|@FILE|KEY=VALUE",
        help="what the guest is told beside who it is: a JSON object, a file that has one (@- is standard input), "
        "or a key and its text; several add",
    )


def metadata_of(words: Sequence[str] | None) -> dict[str, Any] | None:
    """Return what was given, None where nothing was; raises UsageError."""
    if words is None:
        return None
    try:
        return joined([_read(word) if word.startswith("@") else word for word in words])
    except ValueError as error:
        raise UsageError(f"--metadata: {error}") from error


def _read(word: str) -> str:
    name = word[1:]
    try:
        data = sys.stdin.buffer.read(LARGEST_FILE) if name == "-" else read_regular(Path(name), LARGEST_FILE)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror}") from error
    text = data.decode().strip()
    if not text.startswith("{"):
        raise ValueError(f"{name}: it has no JSON object")
    return text
