"""Landlock: what of files, TCP, abstract sockets and signals a process may reach from here on. Standard library only.

The numbers are those of linux/landlock.h; landlock(7) and Documentation/userspace-api/landlock.rst say which version of
the kernel's ABI has which.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446  # the same everywhere
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_REG, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
_FILE_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights to files there are, from which version of the ABI on."""
_TCP = 0b11
"""bind(2) and connect(2), from ABI 4 on."""
_SCOPES = 0b11
"""Abstract Unix sockets and signals of who is not confined with it, from ABI 6 on."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Rule(NamedTuple):
    """Rights to a file, or to a directory and all below it, by a descriptor of it, which may be O_PATH."""

    descriptor: int
    rights: int


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttributes(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("rights", ctypes.c_uint64), ("parent", ctypes.c_int32))


@cache
def abi() -> int:
    """Return the version of the ABI that the kernel has; 0 where it has none, or has been told to have none."""
    arguments = ctypes.c_size_t(0), ctypes.c_uint(_CREATE_RULESET_VERSION)
    found = int(_libc.syscall(ctypes.c_long(_SYS_CREATE_RULESET), None, *arguments))
    if found < 0 and (number := ctypes.get_errno()) not in (errno.ENOSYS, errno.EOPNOTSUPP):
        raise OSError(number, os.strerror(number))
    return max(found, 0)


def confine(rules: Iterable[Rule]) -> int:
    """Have this thread, and what it starts, reach these files alone, and nothing by TCP; returns the ABI that says so.

    From ABI 6 on also no abstract Unix socket and no signal of a process outside. What is open stays open, with what it
    was opened for. Raises OSError; it needs PR_SET_NO_NEW_PRIVS.
    """
    version = abi()
    if not version:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock, or was started without it")
    handled = (1 << max(count for since, count in _FILE_RIGHTS_BY_ABI.items() if since <= version)) - 1
    attributes = _RulesetAttributes(handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    # What the kernel does not know has to be beyond the size: copy_struct_from_user.
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _called(_SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for rule in rules:
            beneath = _PathBeneathAttributes(rule.rights & handled, rule.descriptor)
            of_path = ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(beneath), ctypes.c_uint(0)
            _called(_SYS_ADD_RULE, ctypes.c_int(ruleset), *of_path)
        _called(_SYS_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)
    return version


def _called(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
