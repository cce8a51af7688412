"""Lines of pieces: cut, padded, and told from one another."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from forktui.view.styled_lines import Line, clipped, differences, fit, left, line_width, right


def text(line: Line) -> str:
    """A line without its inks."""
    return "".join(part for part, _ in line)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x3100, categories=["L", "N", "Zs"])), st.integers(0, 30))
def test_words_take_exactly_the_cells_they_are_given(word: str, width: int) -> None:
    assert cell_len(left(word, width)) == width
    assert cell_len(right(word, width)) == width
    assert cell_len(fit(word, width)) <= width


@given(st.lists(st.tuples(st.text("ab虚 "), st.just("plain"))), st.integers(0, 20))
def test_a_clipped_line_fits_and_shows_that_it_was_cut(line: Line, width: int) -> None:
    cut = clipped(line, width)
    assert line_width(cut) <= width
    if line_width(line) <= width:
        assert text(cut) == text(line)
    elif width:
        assert text(cut).endswith("…")


pieces = st.lists(st.tuples(st.text("ab虚 ", min_size=1, max_size=4), st.sampled_from(["plain", "muted"])), max_size=5)


@given(pieces, pieces)
def test_two_lines_are_the_same_outside_of_their_difference(before: Line, after: Line) -> None:
    cells = [cells_of(line) for line in (before, after)]
    width = max(map(len, cells))
    one, other = (line + [("", "nothing")] * (width - len(line)) for line in cells)
    spans = differences(before, after)
    assert spans == sorted(spans)
    outside = set(range(width)).difference(*(range(begin, end) for begin, end in spans))
    assert all(one[cell] == other[cell] for cell in outside)
    assert differences(after, after) == []


def test_two_numbers_that_change_are_two_differences() -> None:
    before: Line = [("1", "plain"), (" fork ", "muted"), ("2", "plain"), (" VMs", "muted"), ("more", "plain")]
    after: Line = [("3", "plain"), (" fork ", "muted"), ("4", "plain"), (" VMs", "muted")]
    assert differences(before, after) == [(0, 1), (7, 8), (12, 16)]


def cells_of(line: Line) -> list[tuple[str, str]]:
    """A line cell by cell; the second cell of a wide character is empty."""
    return [
        cell for text, ink in line for symbol in text for cell in [(symbol, ink)] + [("", ink)] * (cell_len(symbol) - 1)
    ]
