"""Metadata as it is typed: JSON, or `key=value` words. Pure."""

import json
import shlex
from collections.abc import Sequence
from typing import Any


def parse_metadata(text: str) -> dict[str, Any]:
    """Return what a line means; raises ValueError, in words for whoever typed it."""
    if text.lstrip().startswith("{"):
        return _object(text)
    try:
        return joined(shlex.split(text))
    except ValueError as error:
        raise ValueError(str(error)[:1].lower() + str(error)[1:]) from None


def joined(words: Sequence[str]) -> dict[str, Any]:
    """Return what several words mean together, each of them JSON or `key=value`; raises ValueError."""
    found: dict[str, Any] = {}
    for word in words:
        for key, value in _one(word).items():
            if found.setdefault(key, value) != value:
                raise ValueError(f"{key!r} is given twice: give it once")
    return found


def _one(word: str) -> dict[str, Any]:
    if word.lstrip().startswith("{"):
        return _object(word)
    key, equals, value = word.partition("=")
    if not key or not equals:
        raise ValueError(f"{word[:80]!r} is neither a JSON object nor key=value")
    return {key: value}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON object: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice: give it once")
    return found
