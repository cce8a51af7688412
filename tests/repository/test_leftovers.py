"""A session that leaves something fails, and says what."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.harness.checkout import ROOT

pytestmark = pytest.mark.slow

CONFTEST = """
from tests.harness import leftovers

def pytest_configure(config):
    config.pluginmanager.register(leftovers)
"""
TESTS = {
    "process": """
import subprocess
def test_it():
    subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
""",
    "directory": """
import pathlib, tempfile
def test_it():
    pathlib.Path(tempfile.mkdtemp(prefix="ft-left-", dir="/tmp"), "a.sock").touch()
""",
    "nothing": """
import subprocess, tempfile
def test_it(tmp_path):
    (tmp_path / "kept").touch()
    with tempfile.TemporaryDirectory(dir="/tmp"):
        subprocess.run(["true"], check=True)
""",
}


@pytest.mark.parametrize("left", TESTS)
def test_what_a_session_leaves_fails_it_by_name(left: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_one.py").write_text(TESTS[left])
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    named = re.findall(r"^left behind: (.*)$", done.stdout, re.MULTILINE)
    match left:
        case "process":
            (pid,) = (int(re.match(r"process (\d+): sleep 600$", line)[1]) for line in named)  # type: ignore[index]
            psutil.Process(pid).kill()
        case "directory":
            (path,) = (Path(re.match(r"directory (\S+) with \['a.sock'\]$", line)[1]) for line in named)  # type: ignore[index]
            (path / "a.sock").unlink()
            path.rmdir()
        case _:
            assert named == []
    assert done.returncode == (0 if left == "nothing" else 1), done.stdout
    assert "1 passed" in done.stdout
