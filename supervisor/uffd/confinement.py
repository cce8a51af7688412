"""How a page server is confined: it reads what guests and templates hold, and all that it needs is handed to it.

What it gives up, once it has what was handed: its user, groups and capabilities; execve(2)'s privileges; by Landlock
all files but its own hot-page list, what Python reads and the pool of huge pages; by seccomp what it never calls;
and files longer than its own. Standard library only.
"""

import contextlib
import os
import resource
import time
from typing import NamedTuple

from supervisor.errors import PageServerError
from supervisor.system import identity, landlock, seccomp
from supervisor.system.landlock import MAKE_REG, READ_DIR, READ_FILE, REMOVE_FILE, TRUNCATE, WRITE_FILE, Rule
from supervisor.uffd.huge_pages import POOL

OWN_FILES = READ_FILE | WRITE_FILE | TRUNCATE | REMOVE_FILE | MAKE_REG
READING = READ_FILE | READ_DIR
_PYTHON = os.path.dirname(os.__file__)  # noqa: PTH120 - no path is to be made of it


class Confinement(NamedTuple):
    """How far a page server is confined."""

    uid: int = 0
    """The user that it is and no other process, without any capability; 0 where it is the supervisor's."""
    landlock_abi: int = 0
    """The version of Landlock's ABI that bounds it; 0 where none does."""
    seccomp: bool = False
    """Whether its system calls are filtered."""
    lacking: tuple[str, ...] = ()
    """What it was to have beside these, and why it has not."""


class Wanted(NamedTuple):
    """How a page server is to be confined."""

    uid: int
    gid: int
    strictly: bool
    """Whether it is not to serve where any of it cannot be had."""


def confine(wanted: Wanted, own_directory: int, longest_file: int) -> Confinement:
    """Give up all that is not needed, for good, and say what is given up; sizes are bytes.

    Raises PageServerError without a user of its own, and for anything that lacks where that is not to be.
    """
    # What a log's times need is read now.
    time.localtime()
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, longest_file))
    try:
        identity.become(wanted.uid, wanted.gid)
        identity.renounce_privileges()
    except OSError as error:
        raise PageServerError(f"it cannot become uid {wanted.uid}: {error.strerror}") from error
    lacking: list[str] = []
    abi, filtered = 0, False
    try:
        abi = _landlocked(own_directory)
    except OSError as error:
        lacking.append(f"Landlock: {error.strerror}")
    try:
        seccomp.confine()
        filtered = True
    except OSError as error:
        lacking.append(f"seccomp: {error.strerror}")
    if lacking and wanted.strictly:
        raise PageServerError(f"it cannot be confined: {'; '.join(lacking)}")
    return Confinement(wanted.uid, abi, filtered, tuple(lacking))


def confinement_here() -> tuple[str, ...]:
    """Return in words what confines a page server that is to be confined, as far as this kernel has it."""
    version = 0
    with contextlib.suppress(OSError):
        version = landlock.abi()
    landlocked = (f"Landlock {version}",) if version else ()
    return ("a uid of its own", "no capabilities", "no_new_privs", *landlocked, "seccomp")


def _landlocked(own_directory: int) -> int:
    """Leave within reach what it writes, and what Python reads; what of that is not there need not be."""
    rules = [Rule(own_directory, OWN_FILES)]
    with contextlib.ExitStack() as opened:
        for path in (_PYTHON, str(POOL)):
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                opened.callback(os.close, descriptor)
                rules.append(Rule(descriptor, READING))
        return landlock.confine(rules)
