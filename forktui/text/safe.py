"""The one place where foreign bytes become terminal text.

Names, messages, console lines and whatever else comes over a socket may hold escape sequences; a terminal obeys them
wherever they are printed, also from inside a widget. Everything foreign passes here before anything draws it.
"""

import unicodedata
from datetime import datetime
from enum import Enum
from functools import cache
from operator import is_
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

TEXT_LIMIT = 400
REPLACEMENT = "�"
ELLIPSIS = "…"

# Unicode's Default_Ignorable_Code_Point characters outside category Cf: terminals draw nothing for them, or widen the
# character before them (variation selectors), so the columns behind them shift.
_INVISIBLE = frozenset(
    {
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    }
)
_BLANK_CONTROLS = frozenset("\t\n\v\f\r\x85")
_BLANK_CATEGORIES = frozenset({"Zs", "Zl", "Zp"})
_REPLACED_CATEGORIES = frozenset({"Cc", "Cs", "Co", "Cn"})
_PLAIN_TYPES = frozenset({bool, int, float, datetime, NoneType})

Model = TypeVar("Model", bound=BaseModel)


def safe_text(value: str | bytes, limit: int = TEXT_LIMIT) -> str:
    """One line of text that a terminal can only print.

    Blanks and line ends become spaces, control characters and undecodable bytes U+FFFD; bidi controls and other
    invisible characters are left out. At most `limit` characters are read; an ellipsis stands for the rest.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if len(text) > limit:
        text = text[: limit - 1] + ELLIPSIS
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_safe_character, text))


def ascii_text(text: str) -> str:
    """`text` with `?` for every character that a terminal without UTF-8 cannot show, and `~` for an ellipsis."""
    return text if text.isascii() else text.replace(ELLIPSIS, "~").encode("ascii", "replace").decode("ascii")


def safe_model(model: Model) -> Model:
    """`model` with every string in it, at any depth, made safe; the same object where nothing had to change."""
    changed: dict[str, object] = {}
    values = model.__dict__
    for name in _fields_with_text(type(model)):
        value = values[name]
        # What most of it is costs no call: nothing at all, or a word.
        if not value or (type(value) is str and value.isascii() and value.isprintable() and len(value) <= TEXT_LIMIT):
            continue
        safe = _safe_value(value)
        if safe is not value:
            changed[name] = safe
    return model.model_copy(update=changed) if changed else model


def _safe_character(character: str) -> str:
    category = unicodedata.category(character)
    if character in _BLANK_CONTROLS or category in _BLANK_CATEGORIES:
        return " "
    if category in _REPLACED_CATEGORIES:
        return REPLACEMENT
    if category == "Cf" or ord(character) in _INVISIBLE:
        return ""
    return character


@cache
def _fields_with_text(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if not _is_plain(field.annotation))


def _is_plain(annotation: object) -> bool:
    """Whether a value of this type has no words but the wire's own, which it is checked against."""
    if get_origin(annotation) in (Union, UnionType):
        return all(map(_is_plain, get_args(annotation)))
    if get_origin(annotation) is Literal or annotation in _PLAIN_TYPES:
        return True
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def _safe_value(value: object) -> object:
    # Exactly str: the members of a StrEnum are the wire's own words and must keep their type.
    if type(value) is str:
        safe = safe_text(value)
        return value if safe == value else safe
    if isinstance(value, BaseModel):
        return safe_model(value)
    if isinstance(value, tuple):
        items = [safe_model(item) if isinstance(item, BaseModel) else _safe_value(item) for item in value]
        return value if all(map(is_, items, value)) else tuple(items)
    if isinstance(value, list):
        return list(map(_safe_value, value))
    if isinstance(value, dict):
        return {_safe_value(key): _safe_value(one) for key, one in value.items()}
    return value
