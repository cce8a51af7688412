"""What a page server gives up: all of it where the kernel has it, and known where it has not; by processes that do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor.system import landlock
from supervisor.system.seccomp import REFUSED
from tests.harness.checkout import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="page servers are confined by root alone")

UID: Final = 1_879_048_998
BEGIN: Final = f"""
import ctypes, errno, json, os, sys
from supervisor.errors import PageServerError
from supervisor.system import landlock, seccomp
from supervisor.uffd.confinement import Wanted, confine

def confined(*, strictly=True):
    own = os.open(sys.argv[1], os.O_PATH)
    os.fchdir(own)
    try:
        return confine(Wanted({UID}, {UID}, strictly), own, 10_000)._asdict()
    except PageServerError as error:
        return error.message

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
"""


def told(directory: Path, program: str) -> Any:
    """Return what a program tells that begins so, and whose own directory is this."""
    os.chown(directory, UID, UID)
    command = (sys.executable, "-c", f"{BEGIN}\n{program}", str(directory))
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def test_all_of_it_is_had_and_said(run_dir: Path) -> None:
    found = told(run_dir, "print(json.dumps([confined(), os.getresuid(), os.getresgid(), os.getgroups()]))")
    whole = {"uid": UID, "landlock_abi": landlock.abi(), "seccomp": True, "lacking": []}
    assert found == [whole, [UID] * 3, [UID] * 3, []]


def test_what_this_kernel_lacks_is_said_and_refused_where_that_is_not_to_be(run_dir: Path) -> None:
    without = "landlock.abi = lambda: 0\nseccomp._MACHINES = {}\n"
    lax = told(run_dir, f"{without}print(json.dumps(confined(strictly=False)))")
    assert (lax["uid"], lax["landlock_abi"], lax["seccomp"]) == (UID, 0, False)
    (no_landlock, no_seccomp) = lax["lacking"]
    assert no_landlock == "Landlock: this kernel has no Landlock, or was started without it"
    assert no_seccomp.startswith("seccomp: no filter is known for ")
    strict = told(run_dir, f"{without}print(json.dumps(confined()))")
    assert strict == f"it cannot be confined: {no_landlock}; {no_seccomp}"


def test_who_is_not_root_becomes_nobody_else(run_dir: Path) -> None:
    found = told(run_dir, f"os.setresuid({UID}, {UID}, {UID})\nprint(json.dumps(confined(strictly=False)))")
    assert found == f"it cannot become uid {UID}: Operation not permitted"


def test_every_call_of_the_list_is_refused(run_dir: Path) -> None:
    program = """
libc = ctypes.CDLL(None, use_errno=True)
place = seccomp._MACHINES[os.uname().machine].place
assert confined()["seccomp"]
def refused(number):
    ctypes.set_errno(0)
    return libc.syscall(number, *[ctypes.c_long(-1)] * 6) == -1 and ctypes.get_errno() == errno.EPERM
numbers = {name: pair[place] for name, pair in seccomp.REFUSED.items() if pair[place] >= 0}
print(json.dumps([len(numbers), [name for name, number in numbers.items() if not refused(number)]]))
"""
    count, others = told(run_dir, program)
    assert others == []
    assert len(REFUSED) >= count > 70


def test_it_writes_files_of_its_own_as_long_as_its_longest(run_dir: Path) -> None:
    program = """
found = confined()
def write(path, size):
    with open(path, "wb", buffering=0) as file:
        file.truncate(size)
print(json.dumps([
    outcome(lambda: write("list", 10_000)),
    outcome(lambda: os.rename("list", "other")),
    outcome(lambda: write("list", 10_001)),
    outcome(lambda: os.unlink("other")),
    outcome(lambda: os.mkdir("directory")),
    outcome(lambda: os.mkfifo("fifo")),
    outcome(lambda: os.symlink("list", "link")),
    outcome(lambda: os.link("list", "link")),
    outcome(lambda: os.listdir("/")),
]))
"""
    found = told(run_dir, program)
    assert found[:4] == ["done", "done", "EFBIG", "done"]
    assert set(found[4:8]) <= {"EPERM", "EACCES"}
    assert found[8:] == ["EACCES"]


def test_what_nobody_caught_is_told_without_pythons_library(run_dir: Path) -> None:
    program = """
from supervisor.system import last_words
for name in ("traceback", "linecache", "tokenize"):
    sys.modules[name] = None
os.dup2(1, 2)
try:
    raise ValueError("of no use\\nat all")
except ValueError as error:
    last_words._tell(type(error), error, error.__traceback__)
"""
    command = (sys.executable, "-c", f"{BEGIN}\n{program}", str(run_dir))
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    head, *lines = said.splitlines()
    assert head.endswith("nobody caught what went wrong in the main thread:")
    assert lines[0].strip() == "ValueError: of no use"
    assert ", line " in lines[-1]
