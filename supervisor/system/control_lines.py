"""Lines of JSON between the supervisor and a process of its own: requests, answers, events. Standard library only."""

import json
from collections.abc import Mapping
from typing import Any

LINE_BYTES = 65536
"""The most of a request."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message on a line; ValueError when it is none."""
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message
