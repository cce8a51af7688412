"""A userfaultfd that this user may not take out of a VMM: the refusal says what would allow it."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from supervisor.uffd import kernel

pytestmark = [
    pytest.mark.usefixtures("userfaultfd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user"),
]

OWNER, OTHER = 65534, 65533
TAKER = """
import os, sys
from supervisor.errors import PageServerError
from supervisor.uffd.takeover import take_userfaultfd
pid, real, effective = map(int, sys.argv[1:])
os.setgroups([])
os.setresgid(effective, effective, effective)
os.setresuid(real, effective, effective)
try:
    os.close(take_userfaultfd(pid))
except PageServerError as error:
    print(error.message)
else:
    print("taken")
"""
REMEDY = (
    "the supervisor may not trace a VMM of another user, nor, with kernel.yama.ptrace_scope=1, one that it did not "
    "start: give it CAP_SYS_PTRACE, or set that to 0"
)


@pytest.fixture
def vmm() -> Iterator[int]:
    """The pid of a process of OWNER's that has a userfaultfd."""
    uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.UFFD_USER_MODE_ONLY)
    with subprocess.Popen(
        ("cat",), user=OWNER, group=OWNER, extra_groups=(), stdin=subprocess.PIPE, pass_fds=(uffd,)
    ) as process:
        os.close(uffd)
        yield process.pid


def taken(pid: int, real: int, effective: int) -> str:
    """What comes of taking the userfaultfd of a process as this user."""
    command = (sys.executable, "-c", TAKER, *map(str, (pid, real, effective)))
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_who_is_refused_the_descriptor_is_told_what_would_allow_it(vmm: int) -> None:
    # /proc asks for the effective user, pidfd_getfd for the real one: PTRACE_MODE_READ_FSCREDS in fs/proc/base.c,
    # PTRACE_MODE_ATTACH_REALCREDS in kernel/pid.c. As under Yama, only the second is refused.
    refused = taken(vmm, OTHER, OWNER)
    assert refused == f"the userfaultfd of pid {vmm} cannot be had: Operation not permitted; {REMEDY}"


def test_who_may_not_even_look_is_told_the_same(vmm: int) -> None:
    assert taken(vmm, OTHER, OTHER) == f"the userfaultfd of pid {vmm} cannot be had: Permission denied; {REMEDY}"


def test_root_takes_it(vmm: int) -> None:
    assert taken(vmm, 0, 0) == "taken"
