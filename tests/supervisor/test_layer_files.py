"""Layers as files: merging is what a page server reads, names are the reference count, partial files never count."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import StorageError
from supervisor.snapshots import layer_files, layers
from supervisor.snapshots.layer_files import complete, link, make_way, merge, remove, sweep, tells_pages_apart
from supervisor.snapshots.layers import Layers, layers_to_merge
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.registry import Registry
from supervisor.system import sparse_files
from supervisor.system.sparse_files import allocated
from supervisor.uffd.memory_image import MemoryImage, data_extents

PAGE = 4096
PAGES = 24
SIZE = PAGES * PAGE

Content = dict[int, int]
contents = st.lists(
    st.dictionaries(st.integers(0, PAGES - 1), st.integers(0, 255), max_size=10), min_size=1, max_size=6
)


def write_layer(path: Path, content: Content) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZE)
        for page, byte in content.items():
            os.pwrite(file.fileno(), bytes([byte]) * PAGE, page * PAGE)
    return path


def expected(newest_first: list[Content]) -> bytes:
    pages: Content = {}
    for content in reversed(newest_first):
        pages |= content
    return b"".join(bytes([pages.get(page, 0)]) * PAGE for page in range(PAGES))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "instance").mkdir()
    yield tmp_path / "instance"


@settings(max_examples=60)
@given(chain=contents, cut=st.integers(0, 6))
def test_a_merged_chain_is_what_a_page_server_reads_of_it_however_it_is_cut(chain: list[Content], cut: int) -> None:
    with TemporaryDirectory() as folder:
        files = [write_layer(Path(folder, f"mem.{number}"), content) for number, content in enumerate(chain)]
        merge(files, Path(folder, "flat"))
        assert Path(folder, "flat").read_bytes() == expected(chain)

        newest = min(max(cut, 1), len(files))
        merge(files[:newest], Path(folder, "some"))
        image = MemoryImage([Path(folder, "some"), *files[newest:]], SIZE)
        try:
            read = bytearray(SIZE)
            image.read_into(memoryview(read), 0)
        finally:
            image.close()
        assert read == expected(chain)


def test_a_merged_layer_has_holes_where_no_layer_has_data(tmp_path: Path) -> None:
    files = [write_layer(tmp_path / "new", {3: 7}), write_layer(tmp_path / "old", {3: 1, 9: 2})]
    merge(files, tmp_path / "flat")
    with sparse_files.opened(tmp_path / "flat") as fd:
        assert list(data_extents(fd, SIZE)) == [(3 * PAGE, 4 * PAGE), (9 * PAGE, 10 * PAGE)]
    assert allocated((tmp_path / "flat").stat()) == 2 * PAGE


def test_layers_of_different_machines_are_not_merged(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"\1" * PAGE)
    files = [write_layer(tmp_path / "new", {3: 7}), tmp_path / "short"]
    with pytest.raises(OSError, match="differ in size"):
        merge(files, tmp_path / "flat")
    assert not (tmp_path / "flat").exists()


def test_a_merge_that_fails_half_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write_layer(tmp_path / "new", {3: 7}), write_layer(tmp_path / "old", {9: 2})]
    copied: list[int] = []

    def copy_once(source: int, target: int, start: int, end: int, advance: object) -> None:
        if copied:
            raise OSError(28, os.strerror(28))
        copied.append(start)

    monkeypatch.setattr(layer_files, "copy_range", copy_once)
    with pytest.raises(OSError, match="No space left"):
        merge(files, tmp_path / "flat")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_a_complete_file_is_read_only_and_has_its_name_and_no_other(directory: Path) -> None:
    write_layer(directory / "mem.0.new", {1: 1})
    complete(directory, ("mem.0",))
    assert [path.name for path in directory.iterdir()] == ["mem.0"]
    assert (directory / "mem.0").stat().st_mode & 0o777 == 0o440


def test_what_cannot_be_completed_says_so(directory: Path) -> None:
    with pytest.raises(StorageError, match="a snapshot cannot be kept: No such file"):
        complete(directory, ("mem.0",))


def test_a_layer_goes_with_its_last_name(directory: Path) -> None:
    fork = directory.with_name("fork")
    fork.mkdir()
    layer = write_layer(directory / "mem.0", {5: 5})
    link(("mem.0",), directory, fork)
    assert layer.stat().st_nlink == 2
    remove(directory, ("mem.0", "mem.9"))
    assert list(directory.iterdir()) == []
    assert (fork / "mem.0").read_bytes() == expected([{5: 5}])


def test_what_a_crash_left_without_a_snapshot_is_swept(directory: Path) -> None:
    for name in ("mem.0", "mem.1", "mem.2.new", "state.1", "state.2", "kernel", "memo", "mem.img"):
        (directory / name).touch()
    sweep(directory, ("state.1", "mem.1", "mem.0"))
    assert sorted(path.name for path in directory.iterdir()) == [
        "kernel",
        "mem.0",
        "mem.1",
        "mem.img",
        "memo",
        "state.1",
    ]


def test_what_a_crash_left_makes_way_and_what_stays_is_in_the_way(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_layer(directory / "mem.0.new", {1: 1})
    (directory / "mem.0" / "inside").mkdir(parents=True)
    make_way(directory, ("mem.0",))
    assert list(directory.iterdir()) == []
    (directory / "mem.0.new").mkdir()

    def refuse(_: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(layer_files, "discard", refuse)
    with pytest.raises(StorageError, match=r"mem\.0\.new: it is in the way of a snapshot"):
        make_way(directory, ("mem.0",))


def test_a_file_system_with_pages_as_blocks_tells_pages_apart(tmp_path: Path) -> None:
    assert tells_pages_apart(tmp_path, PAGE)
    assert not tells_pages_apart(tmp_path, 512), "no file system here has blocks of 512 bytes"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sizes", "limit", "merged"),
    [((9,), 2, 0), ((1, 9), 2, 0), ((1, 1, 9), 2, 2), ((5, 4, 9), 2, 3), ((0, 0, 0), 2, 3), ((1,) * 9, 8, 9)],
)
def test_newer_layers_are_merged_until_they_are_as_large_as_the_oldest(
    sizes: tuple[int, ...], limit: int, merged: int
) -> None:
    assert layers_to_merge(sizes, limit) == merged


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20), st.integers(2, 10))
def test_a_chain_is_never_longer_than_allowed_after_merging(sizes: list[int], limit: int) -> None:
    merged = layers_to_merge(sizes, limit)
    assert merged != 1
    assert len(sizes) - max(merged - 1, 0) <= limit


@pytest.mark.parametrize("cause", ["its file system has blocks larger", "No such file or directory"])
async def test_where_pages_cannot_be_told_apart_that_is_said(
    cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    registry = Registry(Layout(tmp_path, tmp_path))
    if cause.startswith("its"):
        registry.open()
        monkeypatch.setattr(layers, "GRANULE_BYTES", 512)
    chains = Layers(Inventory(registry, lambda _: None), 8, lambda level, message, *_, **__: said.append(message))
    await chains.probe()
    assert not chains.diff_layers
    (line,) = said
    assert cause in line
