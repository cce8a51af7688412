"""What an instance's guest may be told of what it is for: a JSON object of bounded size and depth. Pure."""

import json
import math
from typing import Annotated, Any, Final

from pydantic import AfterValidator

MOST_METADATA: Final = 48 << 10
"""Bytes. Firecracker's MMDS takes 51200 (HTTP_MAX_PAYLOAD_SIZE in its src/firecracker/src/main.rs), with what the
supervisor says beside it."""
DEEPEST_METADATA: Final = 16
"""Levels of objects and arrays."""
OWN_KEY: Final = "forktui"
"""What the supervisor says of the instance."""

_LARGEST: Final = 1 << 63
"""Integers beyond that are floats to one reader and errors to another."""


def encoded(document: object) -> bytes:
    """Return JSON as it is counted, and told to a guest."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def checked(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata that a guest can be told; raises ValueError, which says why it cannot."""
    if OWN_KEY in metadata:
        raise ValueError(f"{OWN_KEY} is what the supervisor itself says there; leave it out")
    left: list[tuple[object, int]] = [(metadata, 1)]
    while left:
        value, depth = left.pop()
        _check_one(value)
        inside = _inside(value)
        if inside is not None and depth > DEEPEST_METADATA:
            raise ValueError(f"it has more than {DEEPEST_METADATA} levels of objects and arrays")
        left += [(one, depth + 1) for one in inside or ()]
    if (size := len(encoded(metadata))) > MOST_METADATA:
        raise ValueError(f"it has {size} bytes of JSON, and may have {MOST_METADATA}")
    return metadata


def _inside(value: object) -> list[object] | None:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return [*value] if isinstance(value, list) else None


def _check_one(value: object) -> None:
    if isinstance(value, str):
        # JSON can escape what UTF-8 cannot have.
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("there is half of a surrogate pair in it")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number of JSON")
    elif isinstance(value, int):
        if not -_LARGEST <= value < _LARGEST:
            raise ValueError("an integer in it has more than 64 bits; give it as text")
    elif value is not None and not isinstance(value, dict | list):
        raise ValueError(f"{type(value).__name__} is nothing of JSON")


Metadata = Annotated[dict[str, Any], AfterValidator(checked)]
