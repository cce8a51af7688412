"""The supervisor of an earlier version, out of the history of this checkout."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.harness.checkout import ROOT, TOOL_TIMEOUT


def unpacked(commit: str, directory: Path) -> Path:
    """Return where the supervisor of a commit was put; the test is skipped where the checkout does not have it."""
    command = ("git", "archive", "--format=tar", commit, "supervisor")
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=TOOL_TIMEOUT)
    except FileNotFoundError:
        pytest.skip("there is no git")
    if done.returncode != 0:
        pytest.skip(f"this checkout has no commit {commit}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory
