"""Lines as rows of a pane: wrapped, moved sideways, and with what was searched for marked. Pure."""

import re

from rich.cells import cell_len, get_character_cell_size

from forktui.view.styled_lines import Ink, Line, line_width


def wrapped(line: Line, width: int) -> list[Line]:
    """The line in rows of at most `width` cells, one at least; a character of two cells is not cut."""
    rows: list[Line] = []
    row: Line = []
    room = width
    for text, ink in line:
        rest = text
        while (fitting := _fitting(rest, room)) < len(rest):
            # A character that is wider than a whole row takes one for itself.
            fitting = fitting or (1 if not row else 0)
            row.append((rest[:fitting], ink))
            rows.append(row)
            rest, row, room = rest[fitting:], [], width
        if rest:
            row.append((rest, ink))
            room -= cell_len(rest)
    return [*rows, row] if row or not rows else rows


def height(line: Line, width: int) -> int:
    """How many rows the line takes."""
    if all(text.isascii() for text, _ in line):
        return max(-(-line_width(line) // width), 1)
    return len(wrapped(line, width))


def shifted(line: Line, cells: int, ellipsis: str) -> Line:
    """The line without its first `cells`, and an ellipsis in the place of the first that is left."""
    kept: Line = []
    rest = cells + 1
    for text, ink in line:
        if rest <= 0:
            kept.append((text, ink))
            continue
        left_out = _fitting(text, rest)
        if left_out == len(text):
            rest -= cell_len(text)
            continue
        # Of a character that is half left out nothing is left.
        half = cell_len(text[:left_out]) < rest
        kept.append((text[left_out + half :], ink))
        rest = 0
    return [(ellipsis, "muted"), *kept] if cells else line


def pattern(query: str) -> re.Pattern[str]:
    """What a search finds: the words as they are, in upper and lower case where the query has no upper case."""
    return re.compile(re.escape(query), re.IGNORECASE if query == query.lower() else 0)


def text_of(line: Line) -> str:
    """The line without its inks."""
    return "".join(text for text, _ in line)


def marked(line: Line, found: re.Pattern[str], ink: Ink) -> Line:
    """The line with another ink for all that the pattern finds in it, also across its pieces."""
    spans = [match.span() for match in found.finditer(text_of(line))]
    pieces: Line = []
    begin = 0
    for text, own in line:
        end = at = begin
        end += len(text)
        for first, last in spans:
            if last > at and first < end:
                before, after = max(first, at), min(last, end)
                pieces += [(text[at - begin : before - begin], own), (text[before - begin : after - begin], ink)]
                at = after
        pieces.append((text[at - begin :], own))
        begin = end
    return [piece for piece in pieces if piece[0]]


def _fitting(text: str, room: int) -> int:
    """How many characters of the text fit in `room` cells."""
    if text.isascii():
        return max(min(len(text), room), 0)
    used = 0
    for position, character in enumerate(text):
        used += get_character_cell_size(character)
        if used > room:
            return position
    return len(text)
