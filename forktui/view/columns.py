"""The columns of the fork tree: what each shows, how wide it is, and which give way on a narrow terminal. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from forktui.model.forest import Row
from forktui.model.world import World
from forktui.text.quantities import count, mebibytes
from forktui.view.alarms import mark
from forktui.view.glyphs import Glyphs
from forktui.view.styled_lines import Ink, Line, Piece, left, right
from supervisor.models import Instance, State

MIN_NAME_WIDTH = 16
MAX_NAME_WIDTH = 48
GUIDE_LEVELS = 8
"""How many levels above a row are drawn at most; of a deeper row it says how deep it is."""

STATE_INKS: dict[State, Ink] = {
    State.CREATED: "waiting",
    State.INITIALIZING: "waiting",
    State.RUNNING: "running",
    State.PAUSED: "waiting",
    State.SHUTDOWN: "waiting",
    State.STOPPED: "stopped",
    State.STANDBY: "standby",
    State.UNKNOWN: "broken",
}

_COUNTED_WIDTH = 7
"""What is left of the state's column beside the sign for what is under way."""

_NO_VMM_STATES = frozenset({State.CREATED, State.STOPPED, State.STANDBY})


@dataclass(frozen=True)
class Column:
    """A column of fixed width. `rank` 0 gives way last."""

    title: str
    width: int
    rank: int
    cell: Callable[[World, Instance, Glyphs], Piece]
    numeric: bool = True


def _state(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    operation = instance.operation
    if operation is not None:
        counted = f"{operation.done}/{operation.total}"
        if operation.total is not None and len(counted) > _COUNTED_WIDTH:
            counted = f"{100 * operation.done // max(operation.total, 1)}%"
        return f"{glyphs.working} {operation.verb if operation.total is None else counted}", "waiting"
    if instance.died:
        return f"{glyphs.died} died", "broken"
    return f"{glyphs.states[instance.state]} {instance.state}", STATE_INKS[instance.state]


def _badge(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    if (found := mark(world, instance)) is not None:
        return found
    if instance.mem_locked:
        return f" {glyphs.lock} LOCKED ", "locked"
    if instance.recording:
        return f" {glyphs.record} REC ", "recording"
    return "", "plain"


def _forks(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return (str(instance.fork_count), "strong") if instance.fork_count else (glyphs.none, "guide")


def _counter(value: int, instance: Instance, glyphs: Glyphs, ink: Ink) -> Piece:
    """A page counter, which only a VM whose faults a page server answers has."""
    if value:
        return count(value), ink
    served = instance.memory_backend == "uffd" and instance.state not in _NO_VMM_STATES
    return ("0", "muted") if served else (glyphs.none, "guide")


def _faults(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(world.statistics_of(instance.id).faults, instance, glyphs, "faulted")


def _prefetched(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(world.statistics_of(instance.id).prefetched_pages, instance, glyphs, "prefetched")


def _residual(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(world.statistics_of(instance.id).residual_faults, instance, glyphs, "faulted")


def _private(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _memory(world.statistics_of(instance.id).private_bytes, glyphs)


def _shared(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _memory(world.statistics_of(instance.id).shared_bytes, glyphs)


def _memory(size_bytes: int, glyphs: Glyphs) -> Piece:
    return (mebibytes(size_bytes), "plain") if size_bytes else (glyphs.none, "guide")


def _passes(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    guest = world.statistics_of(instance.id).guest
    if guest is None:
        return glyphs.none, "guide"
    return count(guest.passes), "running" if guest.passes else "muted"


def _backend(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return (instance.memory_backend, "plain") if instance.memory_backend else (glyphs.none, "guide")


def _hypervisor(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return {"firecracker": "fc", "embedded": "emb"}[instance.hypervisor], "muted"


COLUMNS: tuple[Column, ...] = (
    Column("state", 9, 0, _state, numeric=False),
    Column("", 10, 1, _badge, numeric=False),
    Column("forks", 5, 1, _forks),
    Column("faults", 6, 2, _faults),
    Column("prefetch", 8, 3, _prefetched),
    Column("residual", 8, 4, _residual),
    Column("passes", 6, 7, _passes),
    Column("priv MiB", 8, 5, _private),
    Column("shr MiB", 7, 9, _shared),
    Column("mem", 4, 6, _backend, numeric=False),
    Column("vmm", 3, 8, _hypervisor, numeric=False),
)


@dataclass(frozen=True)
class Layout:
    """How a width is shared out: the name's cells, and the columns that have room."""

    name_width: int
    columns: tuple[Column, ...]


@lru_cache(maxsize=16)
def layout(width: int) -> Layout:
    """The columns for a line of `width` cells, one cell between any two."""
    rest = width - MIN_NAME_WIDTH
    fitting: set[Column] = set()
    for column in sorted(COLUMNS, key=lambda column: column.rank):
        if column.width + 1 > rest:
            break
        rest -= column.width + 1
        fitting.add(column)
    chosen = tuple(column for column in COLUMNS if column in fitting)
    return Layout(max(1, min(MIN_NAME_WIDTH + rest, MAX_NAME_WIDTH)), chosen)


def header(shape: Layout, order: str) -> Line:
    """The titles above the columns."""
    title = f"instance (by {order})"
    line: Line = [(left(title if len(title) < shape.name_width else "instance", shape.name_width), "title")]
    for column in shape.columns:
        align = right if column.numeric else left
        line.append((" " + align(column.title, column.width), "title"))
    return line


def row_line(world: World, rows: Sequence[Row], position: int, shape: Layout, glyphs: Glyphs) -> Line:
    """One instance's line."""
    row = rows[position]
    instance = world.instances[row.id]
    line = _name(instance, rows, position, shape.name_width, glyphs)
    for column in shape.columns:
        text, ink = column.cell(world, instance, glyphs)
        if column.numeric:
            line.append((" " + right(text, column.width, glyphs.ellipsis), ink))
        else:
            line += _word(text, ink, column.width, glyphs)
    return line


def _word(text: str, ink: Ink, width: int, glyphs: Glyphs) -> Line:
    """A word at the left of its column; a badge's ink ends where the badge does."""
    fitted = left(text, width, glyphs.ellipsis) if len(text) > width else text
    return [(" ", "plain"), (fitted, ink), (" " * (width - len(fitted)), "plain")]


def _name(instance: Instance, rows: Sequence[Row], position: int, width: int, glyphs: Glyphs) -> Line:
    row = rows[position]
    guide = guides(rows, position, min(GUIDE_LEVELS, (width - 10) // 3), glyphs)
    arrow = ""
    if row.descendants:
        arrow = f"{glyphs.opened if row.expanded else glyphs.closed} "
    hidden = f" +{row.descendants}" if row.descendants and not row.expanded else ""
    ink: Ink = "plain" if row.matches else "muted"
    if row.descendants and row.matches:
        ink = "strong"
    room = max(width - len(guide) - len(arrow) - len(hidden), 1)
    name = left(instance.name, room, glyphs.ellipsis) if not hidden else instance.name[:room]
    line: Line = [(guide, "guide"), (arrow, "muted"), (name, ink), (hidden, "muted")]
    used = len(guide) + len(arrow) + len(name) + len(hidden)
    return [*line, (" " * (width - used), "plain")]


def guides(rows: Sequence[Row], position: int, levels: int, glyphs: Glyphs) -> str:
    """The lines that join a row to its source, for the nearest `levels` levels."""
    parts: list[str] = []
    current = rows[position]
    while current.parent >= 0 and len(parts) < levels:
        last, inner = (glyphs.last_branch, glyphs.branch), (glyphs.gap, glyphs.bar)
        pair = inner if parts else last
        parts.append(pair[0] if current.last else pair[1])
        current = rows[current.parent]
    above = f"{rows[position].depth}{glyphs.deeper}" if current.parent >= 0 else ""
    return above + "".join(reversed(parts))
