"""Whose a process is, and giving that up: uid, groups and capabilities, for good. Standard library only."""

import ctypes
import os

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


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
