"""The import contracts catch what they are there for: faults that are planted in a copy of both packages."""

import shutil
from pathlib import Path

import pytest

from tests.harness.checkout import PACKAGES, ROOT, run, tool


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a directory with both packages and their contracts."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def judged(copy: Path) -> tuple[int, str]:
    """Return lint-imports' exit code and what it says of a copy, which precedes the checkout where Python looks."""
    result = run(tool("lint-imports"), "--no-cache", directory=copy)
    return result.returncode, result.stdout + result.stderr


def test_the_copy_keeps_every_contract(copy: Path) -> None:
    code, said = judged(copy)
    assert code == 0, said
    assert " 0 broken" in said


def test_an_import_against_the_arrows_is_named(copy: Path) -> None:
    (copy / "supervisor" / "rules" / "planted.py").write_text("import supervisor.store.records\n")
    code, said = judged(copy)
    assert code == 1, said
    assert "supervisor.rules.planted -> supervisor.store.records (l.1)" in said


def test_what_the_client_must_not_know_is_named(copy: Path) -> None:
    (copy / "forktui" / "planted.py").write_text("from supervisor.host import host\n")
    code, said = judged(copy)
    assert code == 1, said
    assert "forktui.planted -> supervisor.host.host (l.1)" in said


@pytest.mark.parametrize(
    ("room", "line", "named"),
    [
        ("supervisor/rules", "import psutil", "supervisor.rules.planted -> psutil"),
        ("supervisor/rules", "from time import time", "supervisor.rules.planted -> time"),
        ("supervisor/rules", "from supervisor.system.processes import kill", "-> supervisor.system.processes"),
        ("forktui/view", "from forktui.client.api import SupervisorClient", "-> forktui.client.api"),
        ("forktui/text", "import logging", "forktui.text.planted -> logging"),
    ],
)
def test_what_a_pure_room_must_not_know_is_named(copy: Path, room: str, line: str, named: str) -> None:
    (copy / room / "planted.py").write_text(f"{line}\n")
    code, said = judged(copy)
    assert code == 1, said
    assert f"{named} (l.1)" in said


@pytest.mark.parametrize("stray", ["supervisor/stray.py", "supervisor/stray/__init__.py", "forktui/stray.py"])
def test_what_no_layer_names_is_named(copy: Path, stray: str) -> None:
    (copy / stray).parent.mkdir(exist_ok=True)
    (copy / stray).touch()
    code, said = judged(copy)
    assert code == 1, said
    assert f"{stray.partition('/')[0]}.stray" in said
