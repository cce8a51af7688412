"""Files where another process may have put what is none: opened only as what they are, without waiting, and removed.

A VMM writes in a directory in which the supervisor reads, and whoever makes images writes in theirs. What they may
leave there under a name, a link to somewhere else or a FIFO that nobody writes to, is neither followed nor waited for.
A file on a mount that does not answer is waited for all the same: whoever reads what may lie on one does so in a thread
of concurrency/side_threads.py.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from supervisor.system.log_text import escaped

_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = 1 << 20


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file; raises OSError, which says what else is there."""
    return _opened(str(path), str(path), None, flags, mode)


def new_file(path: Path) -> BinaryIO:
    """Open a new file of mode 0600 for reading and writing; raises FileExistsError where anything is there."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb+")


def open_within(directory: Path, name: str) -> int:
    """Return a descriptor of a regular file below a directory, for reading.

    Links are followed as far as they stay in the directory: whatever is put in their place meanwhile is not. Raises
    OSError; with EXDEV, and where it leads as its `filename2`, for a link out of the directory.
    """
    top = os.path.realpath(directory)
    found = os.path.realpath(directory / name)
    inside = PurePosixPath(found)
    if not inside.is_relative_to(top):
        raise OSError(errno.EXDEV, "it is a link out of its directory", str(directory / name), None, found)
    *folders, last = inside.relative_to(top).parts or (".",)
    with descended(top, folders) as folder:
        return _opened(last, str(directory / name), folder, os.O_RDONLY)


def read_regular(path: Path, most: int) -> bytes:
    """Return what a regular file has; raises OSError, and ValueError where that is more than `most` bytes."""
    return _whole(open_regular(path), most)


def read_within(directory: Path, name: str, most: int) -> bytes:
    """Return what a file below a directory has, opened as by `open_within`; raises as `read_regular`."""
    return _whole(open_within(directory, name), most)


def shown(path: str | Path) -> str:
    """Return a path, which need not be UTF-8, as text that can be sent and printed."""
    return escaped(os.fsencode(path).decode(errors="backslashreplace"))


def make_directories(top: Path, names: PurePosixPath, mode: int = 0o750) -> None:
    """Make directories below one that is there, as far as they are missing; raises OSError for a link among them."""
    with descended(top, names.parts, mode):
        pass


def name_opened(fd: int, target: Path) -> None:
    """Give an open file another name; raises OSError."""
    # By linkat(2) with AT_SYMLINK_FOLLOW, for which Python wants a directory too.
    os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd, follow_symlinks=True)


def link_opened(fd: int, target: Path) -> bool:
    """Give an open file another name, if that can be; raises FileExistsError."""
    try:
        name_opened(fd, target)
    except FileExistsError:
        raise
    except OSError:
        # Another file system, too many links, somebody else's file (fs.protected_hardlinks): a copy does as well.
        return False
    return True


@contextmanager
def descended(top: str | Path, names: Iterable[str], mode: int | None = None) -> Iterator[int]:
    """Give a descriptor of a directory below one, following no link on the way; with a mode what is missing is made."""
    folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if mode is not None:
                with suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=folder)
            next_folder = os.open(name, _DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = next_folder
        yield folder
    finally:
        os.close(folder)


def discard(path: Path) -> None:
    """Remove what is at a path, whatever it is, and follow no link; raises OSError where it stays."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, however deep that goes, and follow no link.

    Raises OSError for what stays, after all else is removed. What lies deeper is brought up and removed there: neither
    the stack nor the longest path nor the limit of open files bounds how deep a program may have made it.
    """
    failed: dict[str, OSError] = {}
    top = os.open(path, _DIRECTORY)
    try:
        while folders := [name for name in _emptied(top, top, failed) if name not in failed]:
            for name in folders:
                try:
                    _remove_raising(top, name, failed)
                except OSError as error:
                    failed[name] = error
    finally:
        os.close(top)
    for first in failed.values():
        raise OSError(first.errno, first.strerror, str(path)) from first
    path.rmdir()


def _remove_raising(top: int, name: str, failed: dict[str, OSError]) -> None:
    """Remove a directory in `top`, once what is in it is removed, or moved to `top` if it is a directory."""
    folder = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        _emptied(folder, top, failed)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _emptied(folder: int, top: int, failed: dict[str, OSError]) -> list[str]:
    """Remove what can be from a directory, and move the directories that are not empty to `top`; return those in it."""
    folders = []
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        try:
            if not is_folder:
                os.unlink(name, dir_fd=folder)
            elif _has_content(name, folder):
                folders.append(name)
                if folder != top:
                    os.rename(name, f".{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)
        except OSError as error:
            failed[name] = error
    return folders


def _has_content(name: str, folder: int) -> bool:
    """Return whether a directory is not empty; one that is has been removed."""
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return True
    return False


def _opened(name: str, shown: str, folder: int | None, flags: int, mode: int = 0o600) -> int:
    try:
        # A FIFO is waited for without O_NONBLOCK, which is nothing to a regular file: open(2).
        fd = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_file(shown, os.stat(name, dir_fd=folder, follow_symlinks=False)) from error
        raise OSError(error.errno, error.strerror, shown) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise _no_file(shown, status)
    return fd


def _whole(fd: int, most: int) -> bytes:
    """Return all that an open file has, and close it."""
    try:
        parts: list[bytes] = []
        left = most + 1 if os.fstat(fd).st_size <= most else 0
        while left and (part := os.read(fd, min(left, _CHUNK))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    if not left:
        raise ValueError(f"it has more than {most} bytes")
    return b"".join(parts)


def _no_file(path: str, status: os.stat_result) -> OSError:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    return OSError(errno.EINVAL, f"it is {kind}, and no file", path)
