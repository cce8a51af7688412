"""What a whole test session has left: processes, mounts, and directories outside of pytest's own."""

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

MARK = "LEFT_BY_TEST_SESSION"
"""Every process that a session starts inherits it, however it detaches itself; a program that runs does not see it."""
PATIENCE = 5.0
"""Seconds for processes that were told to end."""

_made: set[Path] = set()
_found = pytest.StashKey[list[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Mark what will be started, and note every temporary directory that is made."""
    os.environ[MARK] = secrets.token_hex(8)
    sys.addaudithook(_note_directory)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session where something is left."""
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    found = session.config.stash.setdefault(_found, [])
    found += _left(factory.getbasetemp().parent)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = found
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what one of several workers of pytest-xdist has left for the session's."""
    node.config.stash.setdefault(_found, []).extend(getattr(node, "workeroutput", {}).get("left", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what is left."""
    for left in terminalreporter.config.stash.get(_found, []):
        terminalreporter.write_line(f"left behind: {left}", red=True)


def _note_directory(event: str, arguments: tuple[object, ...]) -> None:
    """Take note of what tempfile makes: its audit event has the path."""
    if event == "tempfile.mkdtemp":
        _made.add(Path(str(arguments[0])))


def _left(own: Path) -> Iterator[str]:
    left = _processes()
    psutil.wait_procs(left, timeout=PATIENCE)
    for process in _processes():
        yield f"process {process.pid}: {' '.join(process.cmdline())[:200]}"
    directories = [path for path in sorted(_made) if not path.is_relative_to(own)]
    for path in directories:
        if path.exists():
            yield f"directory {path} with {sorted(inside.name for inside in path.rglob('*'))[:8]}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = Path(line.split()[4])
        if any(place.is_relative_to(path) for path in (own, *directories)):
            yield f"mount {place}"


def _processes() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == os.environ[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
