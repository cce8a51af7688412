"""The checkout that is tested, and the tools of its environment."""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("forktui", "supervisor")
TOOL_TIMEOUT: Final = 300.0
"""Seconds for a tool that takes some ten where the machine is idle."""


def tool(name: str) -> str:
    """Return the path of a console script of this environment."""
    return str(Path(sys.executable).with_name(name))


def run(*command: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however it ends."""
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TOOL_TIMEOUT)
