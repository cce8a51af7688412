"""A log that is never larger than it may be, whatever is written to it and whatever lies in its place."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.consoles import rotation
from supervisor.consoles.bounded_file import BoundedFile, begin, clear_trees
from supervisor.consoles.reading import LogReader
from supervisor.consoles.rotation import PREVIOUS, ROTATION, UNFINISHED, end_of, previous, record
from tests.harness.small_disk import small_disk

MOST = 2000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a log is to be."""
    return tmp_path / "console.log"


def kept(path: Path) -> bytes:
    return b"".join(one.read_bytes() for one in (previous(path), path) if one.exists())


def numbered(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


def test_what_is_old_is_dropped_and_the_end_is_kept(path: Path) -> None:
    file, whole = BoundedFile(path, MOST), numbered(0, 5000)
    for start in range(0, len(whole), 701):
        file.write(whole[start : start + 701])
        assert len(kept(path)) <= MOST
    assert whole.endswith(kept(path))
    assert len(kept(path)) > MOST // 2
    assert end_of(path) == len(whole)
    assert file.dropped == 0


def test_a_log_is_rotated_at_a_line_end(path: Path) -> None:
    BoundedFile(path, MOST).write(numbered(0, 1000))
    assert previous(path).read_bytes().endswith(b"\n")
    assert previous(path).read_bytes().startswith(b"line ")


def test_a_line_that_is_longer_than_a_file_is_torn(path: Path) -> None:
    BoundedFile(path, MOST).write(b"x" * 10_000)
    assert 0 < len(kept(path)) <= MOST
    assert end_of(path) == 10_000


@given(st.lists(st.binary(max_size=700), max_size=12), st.integers(0, 5000))
def test_a_reader_gets_every_byte_once_or_is_told_how_many_are_missing(pieces: list[bytes], seed: int) -> None:
    path = Path(f"/dev/shm/forktui-test-{os.getpid()}/console.log")
    path.parent.mkdir()
    try:
        file, keeps_up, late = BoundedFile(path, MOST), LogReader(path), LogReader(path)
        read = b""
        for number, piece in enumerate(pieces):
            file.write(piece)
            while got := keeps_up.read(seed % 999 + 1):
                assert got.skipped == 0
                read += got.data
                if not got.data:
                    break
            if number % 3 == seed % 3:
                keeps_up.release()
        whole = b"".join(pieces)
        assert read == whole
        got = late.read(1 << 20)
        rest = got.data
        while more := late.read(1 << 20).data:
            rest += more
        assert whole[got.skipped :] == rest
        for reader in (keeps_up, late):
            reader.release()
    finally:
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("killed_after", range(12))
def test_positions_hold_whenever_its_writer_is_killed(
    path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    class Killed(BaseException):
        pass

    left = killed_after

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def made(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return call(*arguments, **named)

        return made

    BoundedFile(path, MOST).write(numbered(0, 130))
    reader = LogReader(path)
    whole = reader.read(MOST).data
    for module, name in ((os, "open"), (os, "write"), (Path, "replace"), (Path, "unlink")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    with contextlib.suppress(Killed):
        BoundedFile(path, MOST).write(numbered(130, 160))
    monkeypatch.undo()
    # Some of what it had read may be gone with it; what is there is where it was.
    BoundedFile(path, MOST).write(b"after\n" * 30)
    while piece := reader.read(MOST).data:
        whole += piece
    assert whole.startswith(numbered(0, 130))
    assert whole.endswith(b"after\n" * 30)
    assert len(whole) == end_of(path)
    reader.release()


@pytest.mark.parametrize("kind", ["FIFO", "link", "directory"])
def test_what_is_in_its_place_is_let_alone_and_what_was_dropped_is_told(path: Path, tmp_path: Path, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    file = BoundedFile(path, MOST)
    file.write(b"before\n")
    path.rename(tmp_path / "aside")
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(outside)
    else:
        path.mkdir()
    file.write(b"lost\n")
    file.write(b"too\n")
    assert file.dropped == 9
    assert "no file" in file.reason
    assert outside.read_text() == "precious"
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (tmp_path / "aside").rename(path)
    file.write(b"after\n")
    assert file.dropped == 0
    assert path.read_text() == f"before\n\n-- 9 bytes were dropped here: {file.reason} --\nafter\n"


@pytest.mark.parametrize("suffix", [PREVIOUS, ROTATION, ROTATION + UNFINISHED])
def test_no_tree_that_is_in_the_way_of_a_rotation_is_removed_by_who_writes(path: Path, suffix: str) -> None:
    file = BoundedFile(path, MOST)
    file.write(numbered(0, 100))
    tree = path.with_name(path.name + suffix)
    (tree / "inside").mkdir(parents=True)
    file.write(numbered(100, 300))
    assert (tree / "inside").is_dir()
    assert file.dropped > 0
    assert path.read_bytes().startswith(b"line 0\n")
    clear_trees(path)
    file.write(b"after\n")
    assert file.dropped == 0
    assert b"bytes were dropped here: Is a directory --\nafter\n" in kept(path)


def test_a_full_disk_drops_and_counts_and_is_written_again_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        path = disk.path / "console.log"
        file = BoundedFile(path, 1 << 20)
        file.write(b"before\n")
        with disk.filled():
            file.write(b"x" * 100_000)
            assert file.dropped > 90_000
            assert file.reason == "No space left on device"
            dropped = file.dropped
        file.write(b"after\n")
        assert path.read_bytes().endswith(f"\n-- {dropped} bytes were dropped here: {file.reason} --\nafter\n".encode())


def test_a_log_of_a_time_without_bounds_is_cut_to_its_end(path: Path) -> None:
    whole = numbered(0, 20_000)
    path.write_bytes(whole)
    BoundedFile(path, MOST).write(b"after\n")
    assert len(kept(path)) <= MOST
    assert (whole + b"after\n").endswith(kept(path))
    assert end_of(path) == len(whole) + 6


def test_a_new_beginning_keeps_the_log_before(path: Path) -> None:
    file = BoundedFile(path, MOST)
    for run in (b"first\n", b"second\n"):
        begin(path, MOST)
        file.write(run)
    assert (previous(path).read_bytes(), path.read_bytes()) == (b"first\n", b"second\n")
    assert end_of(path) == 13


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[1]", b'{"inode": -1, "length": 1, "end": 1}', b"\xff" * 10_000])
def test_a_record_of_a_rotation_that_is_none_counts_for_nothing(path: Path, spoilt: bytes) -> None:
    BoundedFile(path, MOST).write(numbered(0, 1000))
    record(path).write_bytes(spoilt)
    assert rotation.read_record(path) is None
    assert LogReader(path).read(MOST).data != b""
