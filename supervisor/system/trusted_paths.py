"""Whether a path can be trusted: who else could put something else where it leads to. Standard library only.

By owners and mode bits, of which those of the group are the mask of an access control list where there is one: acl(5).
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_MOST_LINKS: Final = 40
"""As many as the kernel follows: path_resolution(7)."""
_ACCESS_CONTROL_LIST: Final = "system.posix_acl_access"


class Distrusted(NamedTuple):
    """The first thing on the way to a path that is not to be trusted."""

    path: Path
    reason: str
    """Begins with the path."""
    owner: int | None = None
    """Who has it, where that is the reason."""


def distrusted(path: Path, owners: Collection[int]) -> Distrusted | None:
    """Return what on the way to a path, itself among it, somebody else could put another in the place of.

    Everything there, links too, belongs to root or to one of `owners`; a directory that others may write to is sticky.
    What is not there, or not to be seen, is nobody's.
    """
    # Whoever has the root directory has everything: in a user namespace that is a uid which stands for others.
    trusted = {0, os.lstat("/").st_uid, *owners}
    for here, status in _way(path):
        if status.st_uid not in trusted:
            return Distrusted(here, f"{here} belongs to uid {status.st_uid}", status.st_uid)
        if stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_ISVTX and _others_write(here, status):
            return _writable(here, status)
    return None


def distrusted_own(folder: Path) -> Distrusted | None:
    """Return what is wrong with a directory that is to be this user's alone to write to, or with the way to it."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no directory"
        return Distrusted(folder, f"{folder} is {kind}")
    if status.st_uid != os.geteuid():
        return Distrusted(folder, f"{folder} belongs to uid {status.st_uid}", status.st_uid)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return _writable(folder, status)
    return distrusted(folder, (os.geteuid(),))


def _writable(folder: Path, status: os.stat_result) -> Distrusted:
    mode = stat.S_IMODE(status.st_mode)
    return Distrusted(folder, f"{folder} can be written to by others (mode {mode:04o}): chmod go-w {folder}")


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the directories and links that the kernel passes on the way to a path, and what is there."""
    here = Path("/")
    rest = list(reversed(path.absolute().parts[1:]))
    links = 0
    with contextlib.suppress(OSError):
        yield here, here.lstat()
        while rest and links <= _MOST_LINKS:
            name = rest.pop()
            found = here.parent if name == ".." else here / name
            status = found.lstat()
            yield found, status
            if stat.S_ISLNK(status.st_mode):
                links += 1
                target = found.readlink()
                rest.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))
                here = Path("/") if target.is_absolute() else here
            else:
                here = found


def _others_write(folder: Path, status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private_group(folder, status)


def _is_private_group(folder: Path, status: os.stat_result) -> bool:
    """Return whether a directory's group has its owner as its only member.

    Where each user has such a group, umask is 002 and directories of the user's are writable by it.
    """
    try:
        user, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    with contextlib.suppress(OSError):
        if _ACCESS_CONTROL_LIST in os.listxattr(folder):
            return False
    # Of root's group there are users whom no list tells of: containers run programs as any uid in it.
    named = (user.pw_gid, user.pw_name) == (group.gr_gid, group.gr_name)
    return status.st_uid != 0 and named and set(group.gr_mem) <= {user.pw_name}
