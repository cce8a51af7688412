"""What a program can reach: named attempts at what is others', each allowed or refused, made with a given identity.

Run as a program it makes the attempts of its argument, after it has become what the argument says.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from supervisor.system import identity, landlock, seccomp
from tests.harness.checkout import ROOT

ALLOWED: Final = "allowed"
REFUSED: Final = "refused"
Outcome = Literal["allowed", "refused"]
Become = Callable[[], None]
"""Gives up what an identity has not; before any attempt, in the process that makes them."""

_PTRACE_SEIZE: Final = 0x4206
_PTRACE_DETACH: Final = 17


def reads(path: str) -> None:
    """Read a file that is there."""
    with Path(path).open("rb") as file:
        file.read(1)


def writes(path: str) -> None:
    """Open a file that is there for writing, and leave it as it is."""
    os.close(os.open(path, os.O_WRONLY))


def lists(path: str) -> None:
    """List a directory."""
    os.listdir(path)  # noqa: PTH208 - no path is to be made of each


def makes(path: str) -> None:
    """Make a file, and remove it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)  # noqa: PTH108 - as it was made


def makes_device(path: str) -> None:
    """Make a device node, the kernel's log of what is written to it, and remove it."""
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 11))
    os.unlink(path)  # noqa: PTH108 - as it was made


def connects(path: str) -> None:
    """Connect to a Unix socket; one whose path begins with @ is abstract."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"\0{path[1:]}" if path.startswith("@") else path)


def connects_by_tcp(port: str) -> None:
    """Connect to a port of this host."""
    with socket.socket(socket.AF_INET) as peer:
        peer.connect(("127.0.0.1", int(port)))


def signals(pid: str) -> None:
    """Send no signal to a process, which asks only whether one may be."""
    os.kill(int(pid), 0)


def signals_by_pidfd(pid: str) -> None:
    """The same by a pidfd."""
    pidfd = os.pidfd_open(int(pid))
    try:
        signal.pidfd_send_signal(pidfd, 0)
    finally:
        os.close(pidfd)


def traces(pid: str) -> None:
    """Seize a process, and let it go."""
    libc = ctypes.CDLL(None, use_errno=True)
    for request in (_PTRACE_SEIZE, _PTRACE_DETACH):
        if libc.ptrace(request, int(pid), None, None) != 0 and request == _PTRACE_SEIZE:
            raise OSError(ctypes.get_errno(), "ptrace")


def takes_descriptor(pid: str) -> None:
    """Take standard error out of a process."""
    pidfd = os.pidfd_open(int(pid))
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        taken = libc.syscall(ctypes.c_long(438), pidfd, 2, 0)
        if taken < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
        os.close(taken)
    finally:
        os.close(pidfd)


def reads_memory(pid: str) -> None:
    """Open a process's memory."""
    reads_of_none = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    os.close(reads_of_none)


def executes(program: str) -> None:
    """Run a program."""
    subprocess.run((program,), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def mounts(path: str) -> None:
    """Mount a tmpfs on a directory, and unmount it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")
    libc.umount2(os.fsencode(path), 0)


def makes_namespace(_: str) -> None:
    """Have a user namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


ATTEMPTS: Final[dict[str, Callable[[str], None]]] = {
    attempt.__name__: attempt
    for attempt in (
        *(reads, writes, lists, makes, makes_device, connects, connects_by_tcp, signals, signals_by_pidfd, traces),
        *(takes_descriptor, reads_memory, executes, mounts, makes_namespace),
    )
}
Attempts = Mapping[str, tuple[str, object]]
"""By what it is called, an attempt's name and what it is made at."""


def made(attempts: Attempts) -> dict[str, Outcome]:
    """Make attempts, each in a child of its own where there may be one; returns which were allowed."""
    return {name: _made(ATTEMPTS[attempt], str(at)) for name, (attempt, at) in attempts.items()}


def _made(attempt: Callable[[str], None], at: str) -> Outcome:
    try:
        child = os.fork()
    except OSError:
        return _outcome(attempt, at)
    if not child:
        with contextlib.suppress(BaseException):
            os._exit(_outcome(attempt, at) == REFUSED)
        os._exit(2)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ALLOWED if code == 0 else REFUSED


def _outcome(attempt: Callable[[str], None], at: str) -> Outcome:
    try:
        attempt(at)
    except (OSError, subprocess.SubprocessError):
        return REFUSED
    return ALLOWED


async def reach(attempts: Attempts, become: str = "nobody_else", *words: object) -> dict[str, Outcome]:
    """Return what a process is allowed that has become what `become`, a function of this module, makes of it."""
    request = {"attempts": dict(attempts), "become": become, "words": list(words)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.harness.reach", json.dumps(request, default=str)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Outcome] = json.loads(told)
    assert found.keys() == attempts.keys()
    return found


def nobody_else() -> None:
    """Stay what this process is."""


def another_user(uid: int) -> None:
    """Be another user, without any group, capability or privilege to come."""
    identity.become(uid, uid)
    identity.renounce_privileges()


def in_jail_of(pid: int, uid: int, gid: str) -> None:
    """Be another user in the jail of a VMM, whose seccomp filter is not on: it leaves the VMM less than that."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    # Its root is that of the mount namespace: the jailer pivots (Firecracker's src/jailer/src/chroot.rs).
    if libc.setns(namespace, 0x00020000) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    identity.become(uid, int(gid))
    identity.renounce_privileges()


def confined(uid: int, directory: str) -> None:
    """Be confined as a page server is whose own directory is this."""
    from supervisor.uffd.confinement import Wanted, confine

    found = confine(Wanted(uid, uid, strictly=True), os.open(directory, os.O_PATH), 1 << 30)
    assert found.landlock_abi == landlock.abi()
    assert found.seccomp
    assert seccomp.REFUSED


def table(columns: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Return outcomes as a table of Markdown, a row for each attempt."""
    first = next(iter(columns.values()))
    lines = [("what is tried", *columns), ("---", *("---" for _ in columns))]
    lines += [(name, *(column[name] for column in columns.values())) for name in first]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    globals()[asked["become"]](*asked["words"])
    print(json.dumps(made(asked["attempts"])))
