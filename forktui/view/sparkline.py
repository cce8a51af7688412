"""A series of numbers as bars of block characters. Pure."""

from collections.abc import Sequence

from forktui.view.glyphs import Glyphs


def bars(values: Sequence[float], height: int, glyphs: Glyphs) -> list[str]:
    """`height` lines, top first, one column a value; the highest value fills them, and every value above zero shows."""
    steps = len(glyphs.heights)
    top = max(values, default=0.0)
    filled = [0 if value <= 0 else max(1, round(value / top * height * steps)) for value in values]
    lines: list[str] = []
    for level in range(height - 1, -1, -1):
        eighths = (min(max(amount - level * steps, 0), steps) for amount in filled)
        lines.append("".join(glyphs.heights[amount - 1] if amount else " " for amount in eighths))
    return lines
