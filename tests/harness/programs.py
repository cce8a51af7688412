"""The two programs, run without a terminal."""

import subprocess
import sys

from tests.harness.supervisor_process import PATIENCE

DONE, FAILED, USAGE = 0, 1, 2


def program(module: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs without a terminal."""
    return subprocess.run(
        (sys.executable, "-P", "-m", module, *arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def complaint(result: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line that a program ended with."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr
