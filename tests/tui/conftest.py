"""What the dashboard's tests share."""

import pytest


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what this terminal and user prefer out of the pictures."""
    for name in ("NO_COLOR", "FORKTUI_ASCII", "TEXTUAL_THEME", "SSH_CONNECTION", "COLORFGBG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORKTUI_ASCII", "0")
