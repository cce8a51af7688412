"""What a jailed VMM has as its root: made anew for each start, and gone after its end. Every function blocks.

Until the VMM runs nobody else has anything there. From then on all of it is the VMM's, which may be hostile: nothing
in it is followed or believed.
"""

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from supervisor.concurrency.progress import advance
from supervisor.jails.needs import Needs
from supervisor.store.layout import DELETED, Layout, partial_record
from supervisor.system.regular_files import link_opened, make_directories, name_opened, open_within, remove_tree
from supervisor.system.sparse_files import copy_opened
from supervisor.system.unix_sockets import held_socket, listening_pid

API_SOCKET = "api.sock"
UFFD_SOCKET = "uffd.sock"
LOG = "log"
PROGRAM = "vmm"

_JAILERS_FILES = 16
"""Its copy of what it starts, its pid, four devices, two sockets, directories, and what the logs take meanwhile."""
_OURS = 0o700
_READABLE = 0o440
_WRITABLE = 0o600


def make_root(layout: Layout, instance_id: str, uid: int, gid: int, needs: Needs, program: Path) -> None:
    """Make the root of an instance's jail, in the place of any that there is; raises OSError.

    `program` is what it executes. What the VMM may only read is its group's, what it may write its user's.
    """
    set_aside(layout, instance_id)
    directory, root = layout.instance(instance_id), layout.jail_root(instance_id)
    for path in (layout.jails, root.parent.parent):
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_OURS)
    # Nothing may be there of a VMM before, whose it was.
    root.parent.mkdir(mode=_OURS)
    root.mkdir(mode=_OURS)
    for folder in needs.folders:
        make_directories(root, folder, _OURS)
        os.chown(root / folder, uid, gid)
    for name in needs.readable:
        _put(directory, name, root, gid)
    for name in needs.writable:
        _give(directory, name, root, uid, gid)
    for socket in needs.sockets:
        _let_call(directory, socket, root, gid)
    os.link(program, root / PROGRAM, follow_symlinks=False)
    os.mkfifo(root / LOG, _WRITABLE)
    os.chown(root / LOG, uid, gid)
    _check_room(root)


def _check_room(root: Path) -> None:
    """Raise OSError where the jailer would lack room: that says it to a log that lacks it too, and aborts.

    By one file as large as all of it: to make as many files takes several times what a jail does.
    """
    found = os.statvfs(root)
    if found.f_files and found.f_ffree < _JAILERS_FILES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(root))
    room = root / "room"
    fd = os.open(room, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OURS)
    try:
        os.posix_fallocate(fd, 0, _JAILERS_FILES * found.f_frsize)
    finally:
        os.close(fd)
        room.unlink()


def set_aside(layout: Layout, instance_id: str) -> Path | None:
    """Take an instance's jail out of the way of the next; returns what is to be removed.

    None where there was none, or it has to stay where it is: the next supervisor removes it.
    """
    aside = layout.jails / f"{DELETED}{instance_id}-{secrets.token_hex(4)}"
    try:
        layout.jail(instance_id).rename(aside)
    except OSError:
        return None
    return aside


def sweep(layout: Layout, kept: Collection[str]) -> None:
    """Remove the jails of all instances but those to be kept, as far as that can be."""
    with contextlib.suppress(FileNotFoundError):
        for jail in list(layout.jail("").iterdir()):
            aside = None if jail.name in kept else set_aside(layout, jail.name)
            if aside is not None:
                remove(aside)


def sweep_aside(layout: Layout) -> None:
    """Remove what an earlier supervisor has set aside; nothing of this one's may be: two do not remove one tree."""
    for aside in list(layout.jails.glob(f"{DELETED}*")):
        remove(aside)


def remove(aside: Path) -> None:
    """Remove what was set aside, as far as the file system lets."""
    with contextlib.suppress(OSError):
        remove_tree(aside)


def bring_sockets(layout: Layout, instance_id: str, pid: int, needs: Needs) -> None:
    """Have what a VMM of this pid listens at for others in its jail reached from its instance's directory as well.

    Raises OSError.
    """
    directory, root = layout.instance(instance_id), layout.jail_root(instance_id)
    for name in needs.sockets:
        held = held_socket(root, str(name))
        try:
            # Refused where somebody else listens: it has been put there by the VMM.
            if listening_pid(Path(f"/proc/self/fd/{held}")) == pid:
                new = partial_record(directory / name)
                new.unlink(missing_ok=True)
                if link_opened(held, new):
                    new.replace(directory / name)
        finally:
            os.close(held)


def _let_call(directory: Path, socket: PurePosixPath, root: Path, gid: int) -> None:
    """Give a VMM the sockets of those whom its guest may call by its vsock device: `<its own>_<port>`.

    Where somebody has bound one before the start, in the instance's directory: as Firecracker's docs/vsock.md has it.
    """
    for path in (directory / socket).parent.glob(f"{glob.escape(socket.name)}_*"):
        with contextlib.suppress(OSError):
            held = held_socket(path.parent, path.name)
            try:
                by_number = f"/proc/self/fd/{held}"
                if os.fstat(held).st_uid == os.geteuid():
                    os.chown(by_number, -1, gid)
                    os.chmod(by_number, os.fstat(held).st_mode & 0o777 | 0o060)  # noqa: PTH101
                link_opened(held, root / socket.parent / path.name)
            finally:
                os.close(held)


def _put(directory: Path, name: str, root: Path, gid: int) -> None:
    """Give a file a second name in a jail, whose group may read it; or a copy, of what is somebody else's."""
    fd = open_within(directory, name)
    try:
        if _opened_to(fd, gid) and link_opened(fd, root / name):
            return
        copy_opened(fd, root / name, advance)
        os.chown(root / name, -1, gid)
        (root / name).chmod(_READABLE)
    finally:
        os.close(fd)


def _opened_to(fd: int, gid: int) -> bool:
    """Let a group read an open file; False where it cannot, and may not be made to."""
    status = os.fstat(fd)
    if status.st_mode & 0o004 or (status.st_mode & 0o040 and status.st_gid == gid):
        return True
    if status.st_uid != os.geteuid():
        return False
    try:
        os.fchown(fd, -1, gid)
        os.fchmod(fd, status.st_mode & 0o7777 | 0o040)
    except OSError:
        # As of a file that is immutable.
        return False
    return True


def _give(directory: Path, name: str, root: Path, uid: int, gid: int) -> None:
    """Give an instance's own disk a second name in its jail, and to its VMM's user."""
    fd = open_within(directory, name)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, _WRITABLE)
        name_opened(fd, root / name)
    finally:
        os.close(fd)
