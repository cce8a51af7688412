"""What the user has chosen is kept; whatever is wrong with where it is kept harms nothing."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from forktui.tui.app import ForkTui
from forktui.tui.choices import FILE_NAME, Choices, KeptChoices
from forktui.tui.messages import BackgroundTold
from tests.harness.pilot import tree, until
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import family, reset

pytestmark = pytest.mark.usefixtures("plain_environment")


def app_with(choices: KeptChoices) -> ForkTui:
    """A dashboard of a family, of a user who has chosen this before."""
    return ForkTui(RecordedSupervisor([reset(family())]), choices=choices)


async def test_a_theme_that_is_chosen_is_there_the_next_time_and_one_that_was_named_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_with(KeptChoices(tmp_path / "new" / "forktui"))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert not (tmp_path / "new").exists(), "nothing was chosen"
        app.theme = "nord"
        file = tmp_path / "new" / "forktui" / FILE_NAME
        await until(pilot, file.exists)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert app_with(KeptChoices(file.parent)).theme == "nord"
    monkeypatch.setenv("TEXTUAL_THEME", "dracula")
    assert app_with(KeptChoices(file.parent)).theme == "dracula"
    assert KeptChoices(file.parent).now == Choices(theme="nord")


async def test_a_theme_that_the_background_asks_for_is_not_kept_and_does_not_replace_a_choice(tmp_path: Path) -> None:
    app, file = app_with(KeptChoices(tmp_path)), tmp_path / FILE_NAME
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        app.post_message(BackgroundTold(True))
        await until(pilot, lambda: app.theme == "forktui-light")
        await pilot.pause()
        assert not file.exists()
        app.theme = "nord"
        await until(pilot, file.exists)
        app.post_message(BackgroundTold(False))
        await pilot.pause(0.1)
        assert app.theme == "nord"


def fifo(file: Path) -> None:
    """Nobody writes to it."""
    os.mkfifo(file)


def large(file: Path) -> None:
    """A GiB of nothing."""
    with file.open("w") as stream:
        stream.truncate(1 << 30)


def text(content: str | bytes) -> Callable[[Path], object]:
    """A file with this."""
    return lambda file: file.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    "spoil",
    [
        fifo,
        large,
        Path.mkdir,
        lambda file: file.symlink_to("/dev/zero"),
        text("{"),
        text("[]"),
        text("null"),
        text(b"\xff\xfe"),
        text("[" * 60_000),
        text('{"theme": 5}'),
        text('{"theme": "\\ud800"}'),
        text('{"theme": "no such"}'),
        text('{"theme": "' + "x" * 60_000 + '"}'),
        text("1" * 60_000),
    ],
)
def test_whatever_is_in_the_files_place_there_is_a_theme(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    spoil(tmp_path / FILE_NAME)
    assert app_with(KeptChoices(tmp_path)).theme == "forktui-dark"


def test_what_a_later_version_keeps_stays_and_what_cannot_be_is_dropped(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"bookmarks": ["a"], "theme": 5}')
    assert KeptChoices(tmp_path).keep(theme="nord") is None
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {"bookmarks": ["a"], "theme": "nord"}


def test_two_dashboards_keep_each_others_choices(tmp_path: Path) -> None:
    one, other = KeptChoices(tmp_path), KeptChoices(tmp_path)
    one.keep(theme="nord")
    other.keep(bookmarks=["b"])
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {"theme": "nord", "bookmarks": ["b"]}


def test_a_directory_that_cannot_be_made_is_said_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = KeptChoices(tmp_path / "file" / "forktui")
    refusal = kept.keep(theme="nord")
    assert refusal is not None and refusal.startswith("it is not kept: ")
    assert kept.now.theme == "nord"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what another user has")
def test_root_writes_nothing_into_the_home_of_who_has_called_sudo(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 1000, 1000)
    refusal = KeptChoices(home / ".local" / "state" / "forktui").keep(theme="nord")
    assert refusal == f"it is not kept: {home} belongs to uid 1000"
    assert list(home.iterdir()) == []
    (home / FILE_NAME).write_text('{"theme": "nord"}')
    assert KeptChoices(home).now.theme == ""
