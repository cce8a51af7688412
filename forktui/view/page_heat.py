"""A page map as a heat map: one character a cell, by what most of its present pages are. Pure."""

from forktui.text.quantities import count, plural, size
from forktui.view.glyphs import Glyphs
from forktui.view.styled_lines import Ink, Line, Piece, joined, line_width, merged
from supervisor.models import Instance, PageMapFold

Cell = tuple[int, int, int, int, int]
"""Pages that are absent, faulted, fault-around, prefetched, zero."""

MIXED_SHARE = 1 / 3
"""A cell is mixed where the second kind has at least this share of its present pages."""

_KINDS: tuple[Ink, ...] = ("faulted", "around", "prefetched", "zero")


def heat_lines(fold: PageMapFold, width: int, glyphs: Glyphs) -> list[Line]:
    """The cells in address order, `width` a line; neighbours of one ink are one piece."""
    pieces = [heat_piece(cell, glyphs) for cell in fold.cells]
    return [merged(pieces[start : start + width]) for start in range(0, len(pieces), width)]


def heat_piece(cell: Cell, glyphs: Glyphs) -> Piece:
    """One cell: its glyph tells the kind also without colour."""
    symbols = (glyphs.faulted, glyphs.fault_around, glyphs.prefetched, glyphs.zero)
    present = sorted(zip(cell[1:], symbols, _KINDS, strict=True), key=lambda kind: kind[0], reverse=True)
    (most, symbol, ink), (second, _, _) = present[0], present[1]
    if not most:
        return glyphs.absent, "absent"
    if second >= MIXED_SHARE * sum(cell[1:]):
        return glyphs.mixed, ink
    return symbol, ink


def heat_title(fold: PageMapFold, width: int) -> Line:
    """How many pages there are, and how many a cell stands for, as much of it as there is room for."""
    title: Line = [("page map", "title")]
    per_cell = fold.pages / max(len(fold.cells), 1)
    pages: Piece = (f"  {plural(fold.pages, 'page')} of {size(fold.page_size)}", "plain")
    share: Piece = (f"  {per_cell:.0f} a cell" if per_cell >= 1 else "", "muted")
    for more in (pages, share):
        if line_width([*title, more]) <= width:
            title.append(more)
    return title


def legend(fold: PageMapFold, width: int, glyphs: Glyphs) -> Line:
    """What the glyphs that occur mean, and how many pages are of each kind that is present."""
    absent, *present = (sum(cell[kind] for cell in fold.cells) for kind in range(5))
    symbols = (glyphs.faulted, glyphs.fault_around, glyphs.prefetched, glyphs.zero)
    entries: list[Line] = []
    for symbol, ink, pages in zip(symbols, _KINDS, present, strict=True):
        if pages:
            entries.append([(symbol, ink), (f" {ink}", "muted"), (f" {count(pages)}", "plain")])
    if absent:
        entries.append([(glyphs.absent, "absent"), (" absent", "muted")])
    if any(heat_piece(cell, glyphs)[0] == glyphs.mixed for cell in fold.cells):
        entries.append([(glyphs.mixed, "plain"), (" mixed", "muted")])
    uncounted = [entry[:2] for entry in entries]
    forms = [joined(entries, ("  ", "plain")), joined(entries, (" ", "plain")), joined(uncounted, (" ", "plain"))]
    return next((form for form in forms if line_width(form) <= width), forms[-1])


def has_page_map(instance: Instance) -> bool:
    """Whether a page server answers for the instance's memory."""
    return instance.vmm_pid is not None and instance.memory_backend == "uffd"


def no_page_map(instance: Instance) -> str:
    """Why an instance has no page map, or that it is on its way."""
    if instance.vmm_pid is None:
        return f"{instance.state}: no VMM, so no pages; move to a running fork"
    if instance.memory_backend == "file":
        return "file backend: the kernel answers the faults and counts no pages"
    if instance.memory_backend is None and any(phase.name == "load" for phase in instance.phases):
        return "detached: it needs its source no more, and nobody counts its pages"
    if instance.memory_backend is None:
        return "booted cold: its memory comes from no snapshot"
    return "being read"
