"""An environment of its own for a program, `forktui` as a function, and the homes that demos make."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forktui.cli import main
from tests.harness.supervisor_process import processes_of

Forktui = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def environment(run_dir: Path) -> dict[str, str]:
    """Return an environment without this host's options and with a home of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FORKTUI_", "XDG_"))}
    return own | {
        "HOME": str(run_dir),
        "FORKTUI_DATA_DIR": str(run_dir / "data"),
        "FORKTUI_RUN_DIR": str(run_dir / "run"),
    }


@pytest.fixture
def forktui(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Forktui:
    """Return `forktui` as a function of its arguments: exit code, standard output, standard error."""
    monkeypatch.setattr(os, "environ", environment)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main.main, arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def own_options(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    """Keep this host's options out."""
    for name in [name for name in os.environ if name.startswith("FORKTUI_")]:
        monkeypatch.delenv(name)
    (run_dir / "empty.toml").touch()
    monkeypatch.setenv("FORKTUI_CONFIG", str(run_dir / "empty.toml"))


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Return the temporary homes that demos of this test made; nothing of them may be left at its end."""
    made: list[Path] = []
    make = tempfile.mkdtemp

    def note(*args: Any, **named: Any) -> str:
        made.append(Path(make(*args, **named)))
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", note)
    yield made
    for home in made:
        assert_nothing_is_left(home)


def assert_nothing_is_left(home: Path) -> None:
    assert [process.cmdline() for process in processes_of(home)] == []
    assert not home.exists()
