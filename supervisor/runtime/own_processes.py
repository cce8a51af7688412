"""Which processes are ours: VMMs, page servers and the console holder, told from any other that a pid may be by now.

A record may be of another boot, restored from a backup or edited, and pids are given again: nothing is killed or
adopted before the process itself shows that it was started for this instance or template. Every function blocks on
/proc.
"""

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Final

from supervisor.consoles import program
from supervisor.store.layout import Layout
from supervisor.store.records import ProcessIdentity
from supervisor.system.process_group import mark_of
from supervisor.system.processes import boot_id, proc_file, start_time_of, status_field
from supervisor.system.same_file import is_at
from supervisor.uffd.control import Configuration

_API_SOCKET: Final = "--api-sock"
_CONSOLE_HOLDER: Final = program.MODULE
_PAGE_SERVER: Final = "supervisor.uffd.page_server"
_TEMPLATE_ID: Final = re.compile(rf'"{Configuration._fields[0]}": ?("(?:[^"\\]|\\.)*")')
_FIRST_LAYER: Final = re.compile(r'"layers": ?\[("(?:[^"\\]|\\.)*")')
"""In the JSON that a page server is started with, of which not all may be read."""


def identity_of(pid: int) -> ProcessIdentity | None:
    """Return how a process is known again; None where it has ended."""
    try:
        return ProcessIdentity(pid=pid, start_time=start_time_of(pid), boot_id=boot_id())
    except OSError:
        return None


def instance_of(pid: int, layout: Layout) -> str | None:
    """Return the name of the instance's directory that a VMM, or what a VMM started, is of; None for any other process.

    By the mark that it was started with; one of an earlier version, or whose environment cannot be read, works in the
    directory and has an API socket: an operator's shell there has none. One in a jail by its root.
    """
    directories = [mark_of(pid)]
    if _API_SOCKET in _command(pid):
        try:
            directories.append(str(Path(f"/proc/{pid}/cwd").readlink()))
        except OSError:
            return _named_socket(pid, layout)
    named = next(filter(None, (_name_in(layout.instances, one) for one in directories if one)), None)
    return named or _jailed_in(pid, layout)


def template_of(pid: int, layout: Layout) -> str | None:
    """Return the name of the template's directory that a page server is of; None for any other process.

    The layers that it serves are there, or, of the first templates, which had no links of their own, in an instance's.
    """
    *program, configuration = _command(pid) or [""]
    if not any(_PAGE_SERVER in word for word in program):
        return None
    named, layer = _TEMPLATE_ID.search(configuration), _FIRST_LAYER.search(configuration)
    if named is None or layer is None:
        return None
    try:
        template_id, directory = json.loads(named[1]), str(Path(json.loads(layer[1])).parent)
    except ValueError:
        return None
    ours = _name_in(layout.templates, directory) == template_id or _name_in(layout.instances, directory) is not None
    return template_id if ours else None


def is_vmm(identity: ProcessIdentity, layout: Layout, instance_id: str) -> bool:
    """Return whether a process is there, and is one that was started for this instance."""
    return lives(identity) and instance_of(identity.pid, layout) == instance_id


def is_page_server(identity: ProcessIdentity, layout: Layout, template_id: str) -> bool:
    """Return whether a process is there, and is a page server of this template."""
    return lives(identity) and template_of(identity.pid, layout) == template_id


def holds_consoles(pid: int, layout: Layout) -> bool:
    """Return whether a process is a console holder of this data directory, wherever it listens."""
    words = _command(pid)
    if len(words) < 3 or not any(_CONSOLE_HOLDER in word for word in words[:-2]):
        return False
    try:
        return Path(words[-2]).resolve() == layout.data_dir.resolve()
    except (OSError, RuntimeError, ValueError):
        return False


def is_console_holder(identity: ProcessIdentity, layout: Layout) -> bool:
    """Return whether a process is there, and is a console holder of this data directory."""
    return lives(identity) and holds_consoles(identity.pid, layout)


def same(one: ProcessIdentity, other: ProcessIdentity) -> bool:
    """Return whether two identities are of one process; the boot of one may not be known."""
    boots = {one.boot_id, other.boot_id} - {None}
    return (one.pid, one.start_time) == (other.pid, other.start_time) and len(boots) < 2


def lives(identity: ProcessIdentity) -> bool:
    """Return whether the process of this identity is there."""
    if identity.boot_id not in (None, boot_id()) or identity.pid <= 1 or identity.pid == os.getpid():
        return False
    found = identity_of(identity.pid)
    return found is not None and found.start_time == identity.start_time


def _jailed_in(pid: int, layout: Layout) -> str | None:
    """Return the instance whose jail a process has as its root: "/" to proc_pid_root(5) once it has pivoted there.

    What that was mounted from, and the mount's own root, nobody without capabilities gets rid of.
    """
    try:
        if (status_field(pid, "Uid") or "").split()[:1] == [str(os.getuid())]:
            return None
        mounts = (line.split() for line in proc_file(pid, "mountinfo").decode(errors="replace").splitlines())
        # "36 35 98:0 /mnt1 /mnt2 ...": the root of the mount within its file system, and where it is mounted.
        *_, instance_id, _ = next((Path(fields[3]).parts for fields in mounts if fields[4] == "/"), ("", ""))
        root = (Path(f"/proc/{pid}") / "root").stat()
        return instance_id if is_at(layout.jail_root(instance_id), root) else None
    except (OSError, ValueError, IndexError):
        return None


def _named_socket(pid: int, layout: Layout) -> str | None:
    """Return whose API socket a VMM of this user was told to listen at: where it works may be a secret of the kernel's.

    As of a program with capabilities, or that may not be read (ptrace(2), "dumpable").
    """
    told = (Path(after) for word, after in pairwise(_command(pid)) if word == _API_SOCKET)
    name = next((path.stem for path in told if path == layout.api_socket(path.stem).absolute()), None)
    try:
        uid = (status_field(pid, "Uid") or "").split()[:1]
    except OSError:
        return None
    return name if uid == [str(os.getuid())] else None


def _command(pid: int) -> list[str]:
    try:
        return os.fsdecode(proc_file(pid, "cmdline")).split("\0")[:-1]
    except OSError:
        return []


def _name_in(home: Path, directory: str) -> str | None:
    """Return a directory's name where it is in `home`, by whatever names of that."""
    path = Path(directory)
    try:
        return path.name if path.parent.resolve() == home.resolve() else None
    except (OSError, RuntimeError, ValueError):
        # Anybody's process may name what is no path, or goes in a circle: RuntimeError is that of pathlib.
        return None
