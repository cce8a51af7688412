"""Fault-around: how many pages a fault is answered with, decided by how the faults before it went. Pure."""

from typing import NamedTuple

_STREAMS = 8
"""Answers that are remembered: vCPUs that walk through different places shall not take each other for random access."""


class Window(NamedTuple):
    """What one fork's faults have led to."""

    pages: int
    """How many pages the latest answer was to have, or the first one is to."""
    answered: tuple[tuple[int, int], ...] = ()
    """The latest answers as runs [start, end) of pages, newest first, those that touch being one."""


def adapted(window: Window, page: int, most: int) -> int:
    """How many pages a fault at `page` is to be answered with, at least 1 and at most `most`.

    Twice as many as before when it lies beside an answer, as it does in a walk of either direction; as many when it is
    no farther off than a window; else half: what was brought around the others was hardly wanted.
    """
    if not window.answered:
        return min(window.pages, most)
    gap = min(start - 1 - page if page < start else max(page - end, 0) for start, end in window.answered)
    if gap == 0:
        return min(2 * window.pages, most)
    if gap < window.pages:
        return min(window.pages, most)
    return max(window.pages // 2, 1)


def after_answer(window: Window, pages: int, start: int, end: int) -> Window:
    """The window after an answer that was to have `pages` pages and was the run [start, end)."""
    others = []
    for first, last in window.answered:
        if first <= end and start <= last:
            start, end = min(start, first), max(end, last)
        else:
            others.append((first, last))
    return Window(pages, ((start, end), *others[: _STREAMS - 1]))


def aligned(page: int, pages: int) -> tuple[int, int]:
    """The window [start, end) of `pages` pages that `page` lies in, on a multiple of its size."""
    start = page - page % pages
    return start, start + pages
