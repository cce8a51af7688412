"""The help: by section, and what is searched for in it."""

import pytest

from forktui.actions.action import Group
from forktui.actions.registry import ACTIONS
from forktui.tui.screens.dashboard import Dashboard
from forktui.tui.screens.help import Help, help_lines
from tests.harness.pilot import host, screen_text, tree, until, until_shown
from tests.harness.told_hosts import family

pytestmark = pytest.mark.usefixtures("plain_environment")


def text(words: str = "") -> list[str]:
    """The help's lines that have these words."""
    return ["".join(part for part, _ in line) for line in help_lines([("Down j", "Next line")], 80, words)]


def test_every_action_is_in_its_section_with_its_key_and_word() -> None:
    lines = text()
    sections = [group.value for group in Group]
    assert [line for line in lines if line in sections] == sections
    for action in ACTIONS:
        assert any(line.startswith(f"  {action.key} ") and action.name in line for line in lines), action.word
        assert f":{action.word})" in " ".join(lines)
    assert max(map(len, lines)) <= 80


def test_a_search_keeps_what_has_all_words_under_its_section() -> None:
    assert text("NEXT line") == ["Fork tree", "  Down j" + " " * 20 + "Next line"]
    found = text("snapshot vmm")
    assert found[0] == "Virtual machines"
    assert [line[2:4] for line in found[1:] if line[2] != " "] == ["s ", "x "]
    assert text("no such thing") == []


async def test_help_is_searched_with_a_slash_and_left_with_escape() -> None:
    app = host(family())
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("question_mark", "slash", *"detach", "enter")
        await until(pilot, lambda: "Fan out" not in screen_text(pilot).split("Keys")[1].split("Esc closes")[0])
        assert "Give a share_memory fork" in screen_text(pilot)
        await pilot.press("slash", *"xyz")
        await until_shown(pilot, "Nothing matches.")
        await pilot.press("escape")
        await until_shown(pilot, "Fan out")
        assert [type(screen) for screen in app.screen_stack[1:]] == [Dashboard, Help]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
