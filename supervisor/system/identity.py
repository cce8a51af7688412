"""Whose a process is, and giving that up: uid, groups and capabilities, for good. Standard library only."""

import ctypes
import os
from pathlib import Path

from supervisor.system.processes import status_field

# Their numbers are those of linux/capability.h.
NEEDED = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_PTRACE": 19}
"""By which a process makes another one somebody else's, and goes on to know and to end it."""
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def lacking() -> tuple[str, ...]:
    """Return which capabilities of NEEDED this process has not; raises OSError."""
    held = int(status_field("self", "CapEff") or "0", 16)
    return tuple(name for name, number in NEEDED.items() if not held >> number & 1)


def maps(uids: range) -> bool:
    """Return whether the user namespace of this process has all of these uids, and the gids of the same numbers."""
    for kind in ("uid_map", "gid_map"):
        lines = [tuple(map(int, line.split())) for line in Path(f"/proc/self/{kind}").read_text().splitlines()]
        if not any(first <= uids[0] and uids[-1] < first + count for first, _, count in lines):
            return False
    return True


def become(uid: int, gid: int) -> None:
    """Be this user and group alone, with no other group and no capability; nothing of it can be taken back.

    Raises OSError, where this process may not, or kept what it was to lose. Only the calling thread loses its
    capabilities: it is to be the only one.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # They go with uid 0, unless securebits say otherwise: capabilities(7).
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()))
    prctl(_PR_SET_DUMPABLE, 0)


def renounce_privileges() -> None:
    """Have no execve(2) from here on give this process, or a child of it, any privilege (PR_SET_NO_NEW_PRIVS)."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument; raises OSError."""
    _checked(_libc.prctl(option, *(ctypes.c_ulong(word) for word in (argument, 0, 0, 0))))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
