"""A screenshot goes to a file of its own, whose path is said; or it is said why not."""

import os
from pathlib import Path

import pytest

from forktui.tui import pictures
from tests.harness.pilot import host, tree, until, until_shown
from tests.harness.told_hosts import family

pytestmark = pytest.mark.usefixtures("plain_environment")


async def test_a_screenshot_is_said_where_it_is_from_the_palette_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = host(family())
    async with app.run_test(size=(200, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("question_mark", "ctrl+s")
        await until_shown(pilot, "screenshot: ")
        [first] = pictures_in(tmp_path)
        assert "Virtual" in first.read_text()
        await pilot.press("escape", "ctrl+p")
        await pilot.press(*"screenshot")
        await until_shown(pilot, "Screenshot (^s)")
        await pilot.press("enter")
        await until(pilot, lambda: len(pictures_in(tmp_path)) == 2)
    second = max(pictures_in(tmp_path) - {first})
    assert "Virtual" not in second.read_text()
    assert "fork-1" in second.read_text()


def pictures_in(folder: Path) -> set[Path]:
    """The screenshots in a directory."""
    return set(folder.glob("forktui-*.svg"))


def test_nothing_is_overwritten_and_no_link_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "forktui-now")
    (tmp_path / "forktui-now.svg").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "forktui-now-2.svg").write_text("kept")
    assert pictures.picture_file("drawn") == str(tmp_path / "forktui-now-3.svg")
    assert (tmp_path / "forktui-now-2.svg").read_text() == "kept"
    assert not (tmp_path / "elsewhere").exists()


def test_where_the_working_directory_is_gone_it_is_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert pictures.picture_file("drawn").startswith(str(tmp_path / "state" / "forktui" / "forktui-"))
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    with pytest.raises(OSError, match="No such file"):
        pictures.picture_file("drawn")
    os.chdir(tmp_path)


async def test_why_there_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    async with host(family()).run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("ctrl+s")
        await until_shown(pilot, "no screenshot: /proc/none")
