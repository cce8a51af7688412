"""Files that others wrote: opened only as what they are, of bounded size, inside their directory; trees removed."""

import os
import resource
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from supervisor.system.regular_files import (
    discard,
    make_directories,
    open_regular,
    open_within,
    read_regular,
    read_within,
    remove_tree,
)

DEEP = 3000
"""Directories in one another: more than the recursion limit, and their path is longer than PATH_MAX."""


def outside(path: Path) -> None:
    path.symlink_to(path.parent.parent / "secret")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (os.mkfifo, "it is a FIFO, and no file"),
    "a directory": (Path.mkdir, "it is a directory, and no file"),
    "a link out of it": (outside, "it is a link out of its directory"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "it is a link out of its directory"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "it is a symbolic link, and no file"),
    "nothing": (lambda path: None, "No such file or directory"),
    "a link to nothing": (lambda path: path.symlink_to("gone"), "No such file or directory"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_file_in_its_directory_is_refused_without_waiting(tmp_path: Path, what: str) -> None:
    make, reason = REFUSED[what]
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "image").mkdir()
    make(tmp_path / "image" / "file")
    with pytest.raises(OSError, match=reason):
        open_within(tmp_path / "image", "file")


def test_a_link_is_followed_as_long_as_it_stays_in_the_directory(tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "disks").mkdir(parents=True)
    (image / "disks" / "root.img").write_text("disk")
    (image / "relative").symlink_to("disks/root.img")
    (image / "absolute").symlink_to(image / "disks" / "root.img")
    (image / "folder").symlink_to("disks")
    (image / "back").symlink_to("../image/disks")
    for name in ("disks/root.img", "relative", "absolute", "folder/root.img", "back/root.img"):
        assert read_within(image, name, 4) == b"disk"
    (image / "out").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("secret")
    for name in ("out/secret", "../secret", "disks/../../secret", str(tmp_path / "secret")):
        with pytest.raises(OSError, match="it is a link out of its directory") as refused:
            open_within(image, name)
        assert refused.value.filename2 == str(tmp_path / "secret")


def test_a_directory_that_becomes_a_link_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    (image / "disks").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "root.img").write_text("secret")
    found = os.path.realpath(image / "disks" / "root.img")
    (image / "disks").rmdir()
    (image / "disks").symlink_to(tmp_path / "elsewhere")
    top = os.path.realpath(image)
    monkeypatch.setattr(os.path, "realpath", lambda path: found if str(path).endswith("root.img") else top)
    with pytest.raises(NotADirectoryError):
        open_within(image, "disks/root.img")


def test_a_file_that_becomes_a_link_after_the_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("precious")
    (tmp_path / "image").mkdir()
    file = tmp_path / "image" / "kernel"
    file.symlink_to(tmp_path / "secret")
    monkeypatch.setattr(os.path, "realpath", str)
    with pytest.raises(OSError, match="it is a symbolic link, and no file"):
        open_within(tmp_path / "image", "kernel")
    with pytest.raises(OSError, match="it is a symbolic link, and no file"):
        open_regular(file)


@pytest.mark.parametrize("size", [5, 1 << 40])
def test_a_file_that_is_too_long_is_not_read(tmp_path: Path, size: int) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", size)
    with pytest.raises(ValueError, match="it has more than 4 bytes"):
        read_regular(tmp_path / "file", 4)


def test_a_file_that_says_it_is_empty_and_is_not_is_bounded_too() -> None:
    assert read_regular(Path("/proc/self/stat"), 1 << 16).startswith(str(os.getpid()).encode())
    with pytest.raises(ValueError, match="it has more than 4 bytes"):
        read_regular(Path("/proc/self/stat"), 4)


def test_directories_are_made_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    make_directories(tmp_path / "made", PurePosixPath("a/b"))
    make_directories(tmp_path / "made", PurePosixPath("a/b/c"))
    assert (tmp_path / "made" / "a" / "b" / "c").is_dir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "made" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        make_directories(tmp_path / "made", PurePosixPath("link/d"))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        make_directories(tmp_path / "gone", PurePosixPath("a"))


def deep_tree(top: Path) -> None:
    """Make directories in one another, with a file and a link in each."""
    top.mkdir()
    folder = os.open(top, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=folder)
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
        os.symlink("/etc", "l", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


@pytest.mark.parametrize("remove", [remove_tree, discard])
def test_a_tree_is_removed_however_deep_it_is(tmp_path: Path, remove: Callable[[Path], None]) -> None:
    deep_tree(tmp_path / "tree")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is one of numbers, of which other tests of this process may hold high ones.
    highest = max(int(descriptor.name) for descriptor in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, hard))
    try:
        remove(tmp_path / "tree")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_wide_tree_is_removed_and_what_links_lead_to_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    for first in range(5):
        for second in range(5):
            folder = tmp_path / "tree" / f".{first}" / f"{second}.{first}"
            folder.mkdir(parents=True)
            (folder / "link").symlink_to(tmp_path / "kept")
            os.mkfifo(folder / "fifo")
            (folder / "empty").mkdir(mode=0o500)
    remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").exists()
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "tree")


def test_what_cannot_be_removed_is_told_and_all_else_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = os.unlink

    def refusing(name: str, *, dir_fd: int) -> None:
        if name == "stays":
            raise PermissionError(1, "Operation not permitted")
        unlink(name, dir_fd=dir_fd)

    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    for name in ("a/b/stays", "a/goes", "goes"):
        (tmp_path / "tree" / name).touch()
    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(OSError, match="Operation not permitted"):
        remove_tree(tmp_path / "tree")
    assert [path.name for path in (tmp_path / "tree").rglob("*") if path.is_file()] == ["stays"]
