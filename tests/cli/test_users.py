"""Users that lack what others have: an entry in passwd, a home, a place to write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.checkout import ROOT
from tests.harness.supervisor_process import PATIENCE

NO_USER = 12345
"""In no passwd file of a host that this runs on."""
PROGRAM = f"""
import os, sys
from forktui.cli.main import main
from supervisor.daemon.command import run
from supervisor.daemon.startup_priority import StartupPriority
from supervisor.programs import run_program
os.setgroups([])
os.setresgid({NO_USER}, {NO_USER}, {NO_USER})
os.setresuid({NO_USER}, {NO_USER}, {NO_USER})
name, *arguments = sys.argv[1:]
programs = {{"forktui": lambda: main(arguments), "forktui-supervisor": lambda: run(arguments, StartupPriority())}}
sys.exit(run_program(name, programs[name]))
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.mark.parametrize("home", [None, "", "relative", "/nonexistent", "/dev/null", "/proc"])
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("forktui", "ls"), 1, f"/tmp/forktui-{NO_USER}/supervisor.sock: no supervisor listens there"),
        (("forktui-supervisor",), 1, "name another directory with --data-dir"),
        (("forktui-supervisor", "--data-dir", "~/data", "--hypervisor", "none"), 2, "--hypervisor: 'none' is refused"),
    ],
    ids=["ls", "supervisor", "tilde"],
)
def test_one_without_a_home_is_told_what_is_missing(
    home: str | None, command: tuple[str, ...], code: int, said: str, run_dir: Path
) -> None:
    if "~/data" in command and home is None:
        code, said = 2, "nothing says where that home directory is"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": "relative"}
    ran = subprocess.run(
        (sys.executable, "-c", PROGRAM, *command),
        env=environment | ({} if home is None else {"HOME": home}),
        cwd=run_dir,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ran.returncode, ran.stdout) == (code, ""), ran.stderr
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert list(run_dir.iterdir()) == []
