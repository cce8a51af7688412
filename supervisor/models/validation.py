"""What is wrong with a value that a model refuses, in one line for whoever gave it."""

import re
from pathlib import PurePath
from typing import Any, Final

from pydantic_core import ErrorDetails

from supervisor.models.base import NAME_PATTERN

QUOTED_LENGTH: Final = 80
"""The most characters of a value, or of its path, that are told."""

_NAME_RULE: Final = "it takes lowercase letters, digits and dashes, with a letter or digit at both ends"
_SUBJECT: Final = re.compile(r"^[A-Za-z ]+ should\b")


def explain(problem: ErrorDetails, whole: str = "") -> str:
    """Return one line, `where: what is wrong`; where is the path of the field, or `whole` for all that was given."""
    path = ".".join(map(str, problem["loc"]))
    where = quoted(path)[1:-1] if not path.isprintable() or len(path) > QUOTED_LENGTH else path
    return ": ".join(filter(None, (where or whole, what_is_wrong(problem))))


def what_is_wrong(problem: ErrorDetails) -> str:
    """Return what `explain` says after where, for those who know better where it came from."""
    match problem["type"]:
        case "missing":
            return "it is missing, and required"
        case "extra_forbidden":
            return "it is not known here; leave it out"
        case "json_invalid":
            return problem["msg"].replace("Invalid JSON", "it is not JSON", 1)
        case "model_type":
            return "it is not a JSON object; put its fields in braces"
        case "string_pattern_mismatch" if problem["ctx"]["pattern"] == NAME_PATTERN:
            reason = _NAME_RULE
        case _:
            reason = _SUBJECT.sub("it should", problem["msg"].removeprefix("Value error, "))
    if isinstance(problem["input"], dict | list | tuple):
        return reason
    return f"{quoted(problem['input'])} is refused: {reason}"


def quoted(value: Any) -> str:
    """Return a value from outside as it is quoted in a message: printable, and of bounded length."""
    text = repr(str(value) if isinstance(value, PurePath) else value)
    return text if len(text) <= QUOTED_LENGTH + 2 else f"{text[: QUOTED_LENGTH + 1]}...{text[-1]}"
