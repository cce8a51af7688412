"""A seccomp filter: system calls that a process makes never again. Standard library only.

It lists what is refused, not what is allowed. What Python and glibc call changes with their versions and the machine's,
and a call that an allow list lacks would leave guests waiting for their pages; what is listed here no version of them
needs once a page server has begun. A refused call is EPERM, which Python raises: the process is not killed over it.
"""

import ctypes
import errno
import os
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

_SET_MODE_FILTER = 1
_SPEC_ALLOW = 1 << 2
"""Leaves speculation as it is: before Linux 5.16 a filter would slow down all that the process does."""
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD_WORD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_X32 = 0x40000000
"""From here on the numbers of x86_64 are those of another ABI of the same calls: syscall(2)."""
_INSTRUCTION = Struct("=HBBI")


class Machine(NamedTuple):
    """What a filter has to know of a machine."""

    architecture: int
    """AUDIT_ARCH_* of linux/audit.h."""
    seccomp: int
    place: int
    """Which number of each pair in the tables is this machine's."""


_MACHINES = {"x86_64": Machine(0xC000003E, 317, 0), "aarch64": Machine(0xC00000B7, 277, 1)}

_NONE = -1
_OFTEN = ((16, 29), (327, 286), (232, _NONE), (281, 22), (228, 113))
"""ioctl, preadv2, epoll_wait, epoll_pwait, clock_gettime: what answers faults is looked for first."""

REFUSED: dict[str, tuple[int, int]] = {
    # Other programs and processes.
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, _NONE),
    "vfork": (58, _NONE),
    "clone": (56, 220),
    "clone3": (435, 435),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # Sockets: those that it has were handed to it.
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    # Names in file systems, beyond files of its own.
    "mknod": (133, _NONE),
    "mknodat": (259, 33),
    "link": (86, _NONE),
    "linkat": (265, 37),
    "symlink": (88, _NONE),
    "symlinkat": (266, 36),
    "chmod": (90, _NONE),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, _NONE),
    "fchown": (93, 55),
    "lchown": (94, _NONE),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # Namespaces, and doors into the kernel.
    "setns": (308, 268),
    "unshare": (272, 97),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "personality": (135, 92),
    "iopl": (172, _NONE),
    "ioperm": (173, _NONE),
    "modify_ldt": (154, _NONE),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # The host.
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
"""By name the numbers of x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and of aarch64 (asm-generic/unistd.h)."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine(machine: str | None = None) -> None:
    """Refuse from here on what is in REFUSED, to this thread and what it starts; raises OSError.

    It needs PR_SET_NO_NEW_PRIVS. A program of another ABI of this machine is killed at its first call.
    """
    known = _MACHINES.get(machine or os.uname().machine)
    if known is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.EOPNOTSUPP, f"no filter is known for {machine or os.uname().machine}")
    code = _code(known)
    program = _Program(len(code) // _INSTRUCTION.size, code)
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_SPEC_ALLOW), ctypes.byref(program)
    if libc.syscall(ctypes.c_long(known.seccomp), *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _code(machine: Machine) -> bytes:
    """Return the filter: it jumps to one of the returns behind its tests."""
    often, refused = _numbers(_OFTEN, machine), _numbers(REFUSED.values(), machine)
    tests = [(_JUMP_EQUAL, number, True) for number in often]
    if machine.place == 0:
        tests.append((_JUMP_GREATER_EQUAL, _X32, False))
    tests += [(_JUMP_EQUAL, number, False) for number in refused]
    code = [
        _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _ARCHITECTURE_AT),
        _INSTRUCTION.pack(_JUMP_EQUAL, 1, 0, machine.architecture),
        _INSTRUCTION.pack(_RETURN, 0, 0, _KILL_PROCESS),
        _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _NUMBER_AT),
    ]
    for place, (test, operand, allowed) in enumerate(tests):
        behind = len(tests) - place - 1
        code.append(_INSTRUCTION.pack(test, behind + (0 if allowed else 1), 0, operand))
    return b"".join(
        (*code, _INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW), _INSTRUCTION.pack(_RETURN, 0, 0, _ERRNO | errno.EPERM))
    )


def _numbers(pairs: Iterable[tuple[int, int]], machine: Machine) -> list[int]:
    return [pair[machine.place] for pair in pairs if pair[machine.place] != _NONE]
