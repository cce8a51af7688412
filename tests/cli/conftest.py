"""An environment of its own for a program, and `forktui` as a function."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from forktui.cli import main

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
