"""What is noted of a layer tells it from any other file, and a copy of it from a bad one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.concurrency import progress
from supervisor.errors import LayerError, OperationCancelledError
from supervisor.remedies import Remedy
from supervisor.snapshots.examination import CHUNK_BYTES, Examination
from supervisor.snapshots.layer_checks import check_layers, mark_of, take_marks
from supervisor.store.layer_marks import LayerMark, is_proven
from supervisor.system.sparse_files import opened
from supervisor.uffd.memory_image import data_extents, is_same_time
from tests.harness.copies import KEEPS_TIMES

PAGE = 4096
SIZE = 64 * PAGE
NOTED = 1_790_000_000_123_456_789
SECOND = 10**9


def read_on(length: int) -> None:
    """Hear of what is read, and let it go on."""


def written(path: Path, pages: dict[int, bytes], size: int = SIZE, mtime_ns: int = NOTED) -> Path:
    """Write a sparse file that has these pages, by their numbers, and holes."""
    with path.open("wb") as file:
        file.truncate(size)
        for number, content in pages.items():
            file.seek(number * PAGE)
            file.write(content)
        os.fsync(file.fileno())
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def holes(path: Path) -> list[tuple[int, int]]:
    with opened(path) as fd:
        return list(data_extents(fd, SIZE))


@pytest.mark.parametrize("kind", KEEPS_TIMES)
def test_a_copy_is_told_from_one_that_filled_holes_or_made_some(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    pages = {1: b"\1" * PAGE, 9: bytes(PAGE), 20: b"\2" * PAGE * 3}
    layers = [written(source / name, pages) for name in ("newest", "oldest")]
    noted = take_marks("vm", layers)
    KEEPS_TIMES[kind](source, target)
    copies = [target / layer.name for layer in layers]
    # There is nothing below the oldest: a hole in it is zero, as the other pages are that it says so of.
    check_layers("vm", copies[1:], noted[1:])
    if holes(copies[0]) == holes(layers[0]):
        check_layers("vm", copies, noted)
    else:
        with pytest.raises(LayerError, match=r"does not have its holes where they were.*noted are .*, and there are"):
            check_layers("vm", copies, noted)


@pytest.mark.parametrize(
    ("at", "same"),
    [
        (NOTED, True),
        (NOTED // 100 * 100, True),
        (NOTED // 1000 * 1000, True),
        (NOTED // 10**6 * 10**6, True),
        (NOTED // SECOND * SECOND, True),
        (NOTED // (2 * SECOND) * 2 * SECOND, True),
        (int(NOTED / SECOND * SECOND), True),
        (NOTED + 300, False),
        (NOTED + SECOND, False),
        ((NOTED // SECOND + 1) * SECOND, False),
        (NOTED // SECOND * SECOND - SECOND * 3, False),
        (NOTED // (60 * SECOND) * 60 * SECOND - 1, False),
        (0, False),
    ],
)
def test_a_time_may_be_cut_off_by_a_copy_and_by_nothing_else(at: int, same: bool) -> None:
    assert is_same_time(NOTED, at) is same


@given(st.integers(0, 1 << 62), st.integers(1_000, 1 << 40))
def test_what_is_written_later_has_another_time(noted: int, later: int) -> None:
    assert not is_same_time(noted, noted + later)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what puts something else in a layer's place."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


CHANGED: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    # What is done to the newer layer, what is said, and whether it could be accepted.
    "written": (lambda path: written(path, {1: b"\3" * PAGE}, mtime_ns=NOTED + SECOND), "was written since", True),
    "grown": (lambda path: os.truncate(path, SIZE + PAGE), "was written since", False),
    "cut": (lambda path: os.truncate(path, SIZE - PAGE), f"was truncated from {SIZE} to {SIZE - PAGE} bytes", False),
    "filled": (lambda path: written(path, {1: b"\1" * PAGE, 2: bytes(PAGE)}), "does not have its holes", True),
    "emptied": (lambda path: written(path, {}), "does not have its holes", True),
    "moved": (lambda path: written(path, {2: b"\1" * PAGE}), "does not have its holes", True),
    "gone": (Path.unlink, "is missing: No such file", False),
    "a directory": (replaced(Path.mkdir), "cannot be opened: it is a directory, and no file; put it back", False),
    "a fifo": (replaced(os.mkfifo), "cannot be opened: it is a FIFO, and no file; put it back", False),
    "a link": (
        replaced(lambda path: path.symlink_to("oldest")),
        "cannot be opened: it is a symbolic link, and no file; put it back",
        False,
    ),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_what_has_become_of_a_layer_is_said_with_what_was_noted_and_what_is_there(tmp_path: Path, kind: str) -> None:
    layers = [written(tmp_path / name, {1: b"\1" * PAGE}) for name in ("newest", "oldest")]
    noted = take_marks("vm", layers)
    change, reason, acceptable = CHANGED[kind]
    change(layers[0])
    with pytest.raises(LayerError) as caught:
        check_layers("vm", layers, noted)
    assert f"vm: layer {layers[0]} {reason}" in caught.value.message
    assert caught.value.remedy is (Remedy.ACCEPT if acceptable else None)
    if acceptable:
        first = f"noted are {SIZE} bytes of 2026-09-21T14:13:20.123456789Z, 1 pages of data (map "
        assert first in caught.value.message
        assert f"and there are {SIZE} bytes of " in caught.value.message


def test_of_a_mark_without_holes_only_the_very_file_is_taken(tmp_path: Path) -> None:
    """As former supervisors noted them: a size and a time, which a copy with filled holes has as well."""
    layers = [written(tmp_path / name, {1: b"\1" * PAGE}) for name in ("newest", "oldest")]
    noted = [LayerMark(SIZE, NOTED)] * 2
    check_layers("vm", layers, noted)
    check_layers("vm", layers, ())
    for layer in layers:
        os.utime(layer, ns=(NOTED, NOTED // SECOND * SECOND))
    check_layers("vm", layers[1:], noted[1:])
    with pytest.raises(LayerError, match="may be a copy, of which nobody knows whether it has its holes"):
        check_layers("vm", layers, noted)


def test_what_was_written_with_its_time_set_back_is_found_out_by_reading_it_only(tmp_path: Path) -> None:
    layer = written(tmp_path / "mem.0", {1: b"\1" * PAGE})
    examine = Examination("vm", {SIZE}, read_on)
    (noted,) = take_marks("vm", [layer])
    before = examine(layer)
    written(layer, {1: b"\1" * (PAGE - 1) + b"\2"})
    check_layers("vm", [layer], [noted])
    found = Examination("vm", {SIZE}, read_on)(layer)
    assert is_proven(before, found, oldest=True) is False
    assert is_proven(noted, found, oldest=True) is True, "nobody had read it"


@given(st.dictionaries(st.integers(0, 700), st.sampled_from([b"\0", b"\1", b"\2"]), max_size=20), st.data())
def test_a_digest_is_of_what_is_read_wherever_there_are_holes(
    tmp_path_factory: pytest.TempPathFactory, pages: dict[int, bytes], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("layers")
    size = 701 * PAGE
    assert size % CHUNK_BYTES
    sparse = {number: byte * PAGE for number, byte in pages.items() if byte != b"\0"}
    zeros = data.draw(st.lists(st.integers(0, 700), max_size=20))
    filled = {number: bytes(PAGE) for number in zeros} | {number: byte * PAGE for number, byte in pages.items()}
    marks = [
        Examination("vm", {size}, read_on)(written(directory / name, content, size))
        for name, content in (("sparse", sparse), ("filled", filled))
    ]
    assert marks[0].content == marks[1].content
    changed = {**filled, data.draw(st.integers(0, 700)): b"\3" * PAGE}
    other = Examination("vm", {size}, read_on)(written(directory / "changed", changed, size))
    assert other.content != marks[0].content


def test_a_reading_that_is_cancelled_ends_with_its_chunk(tmp_path: Path) -> None:
    size = 4 * CHUNK_BYTES
    layer = written(tmp_path / "mem.0", {0: b"\1" * size}, size)
    with progress.operation("accept", "id", "vm") as operation:
        operation.cancel("root asked for that")
        with pytest.raises(OperationCancelledError):
            Examination("vm", {size}, progress.advance)(layer)
        assert operation.done == CHUNK_BYTES


def test_a_layer_is_read_once_whatever_its_names(tmp_path: Path) -> None:
    layer = written(tmp_path / "mem.0", {1: b"\1" * PAGE})
    os.link(layer, tmp_path / "linked")
    reads: list[int] = []
    examine = Examination("vm", {SIZE}, reads.append)
    assert examine(layer) == examine(tmp_path / "linked")
    assert len(reads) == 1
    with opened(layer) as fd:
        assert examine(layer)._replace(content=None) == mark_of(fd)
