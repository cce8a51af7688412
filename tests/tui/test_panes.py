"""What the dashboard shows: help, palette, panes, alarms, other terminals; and what it must never show."""

import ast
import re
from pathlib import Path

import pytest
from textual.command import CommandPalette

import forktui
from forktui.actions.registry import ACTIONS
from forktui.tui.messages import Said
from forktui.tui.screens.dashboard import Dashboard
from forktui.tui.screens.reading import Reading
from supervisor.models import Activity, Guest, HostStatistics, InstanceStatistics, Operation, Statistics
from tests.harness.pilot import Wishes, hear, host, screen_text, told, tree, until, until_shown
from tests.harness.told_hosts import BEGIN, chain, family, instance, reset, said

pytestmark = pytest.mark.usefixtures("plain_environment")


# Reading


async def test_help_lists_every_action_with_its_key() -> None:
    async with host(family()).run_test(size=(120, 150)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, Reading))
        said = screen_text(pilot)
        for action in ACTIONS:
            assert any(action.key in line and action.name in line for line in said.splitlines()), action.word
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, Dashboard)


async def test_the_palette_offers_every_action() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        titles = {command.title for command in app.get_system_commands(app.dashboard)}
        assert {f"{action.name} ({action.key})" for action in ACTIONS} <= titles
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"fork (f)")
        await until_shown(pilot, "Fork (f)")
        await pilot.press("enter")
        await until_shown(pilot, "Fork source")
        await pilot.press("enter")
        await until(pilot, lambda: app.wishes == [("fork", ("source",), 1)])


async def test_every_key_of_the_registry_is_bound() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        bound = pilot.app.screen.active_bindings
        assert {key for action in ACTIONS for key in action.keys} <= set(bound)


async def test_q_leaves() -> None:
    app = host(family())
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("q")
    assert app.return_code == 0


@pytest.mark.parametrize("before", [(), ("d",), ("question_mark",), ("slash",), ("F",)])
async def test_ctrl_c_says_which_key_leaves_and_leaves_at_the_second_time(before: tuple[str, ...]) -> None:
    app = host(family())
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press(*before, "ctrl+c")
        await until_shown(pilot, "Ctrl-C again leaves forktui; q leaves too")
        assert app.is_running
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0


async def test_copying_an_id_shows_it() -> None:
    async with host(family()).run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("y")
        await until_shown(pilot, "source: source sent to the clipboard")
        assert pilot.app.clipboard == "source"


async def test_panes_come_and_go_with_their_keys() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        inspector, activity = pilot.app.screen.query_one("#inspector"), pilot.app.screen.query_one("#activity")
        assert (inspector.display, activity.display) == (True, True)
        await pilot.press("i", "e")
        assert (inspector.display, activity.display) == (False, False)
        await pilot.press("i", "e")
        assert (inspector.display, activity.display) == (True, True)


async def test_on_a_small_terminal_the_details_wait_for_their_key() -> None:
    async with host(family()).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        inspector = pilot.app.screen.query_one("#inspector")
        assert not inspector.display
        await pilot.press("i")
        assert inspector.display
        assert "locked by" in screen_text(pilot)
        await pilot.resize_terminal(200, 50)
        await until(pilot, lambda: inspector.size.height > 30)


async def test_the_event_pane_follows_holds_and_follows_again() -> None:
    events = [said(n, f"thing {n}") for n in range(50)]
    async with told(reset(family()), *events).run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "thing 49")
        await pilot.press("p")
        await hear(pilot, said(60, "thing 60"))
        assert "thing 60" not in await until_shown(pilot, "held, 1 newer")
        await pilot.press("p")
        await until_shown(pilot, "thing 60")


async def test_scrolled_up_events_stay_where_they_are() -> None:
    events = [said(n, f"thing {n:02}") for n in range(50)]
    async with told(reset(family()), *events).run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "thing 49")
        await pilot.press("tab", "home")
        await until_shown(pilot, "thing 00")
        await hear(pilot, said(60, "thing 60"))
        await pilot.pause(0.2)
        assert "thing 00" in screen_text(pilot)
        await pilot.press("end")
        await until_shown(pilot, "thing 60")


async def test_a_corrupt_guest_is_an_alarm_in_row_header_and_details() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j")
        counters = InstanceStatistics(id="fork-1", guest=Guest(corrupt="0x1f000"))
        await hear(pilot, Statistics(at=BEGIN, instances=(counters,), host=HostStatistics()))
        lines = (await until_shown(pilot, "1 CORRUPT")).splitlines()
        assert any("fork-1" in line and "CORRUPT" in line for line in lines)
        assert any("0x1f000" in line for line in lines)


# Terminals of other kinds


async def test_an_ascii_terminal_gets_nothing_but_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKTUI_ASCII", "1")
    events = [said(n, "größe") for n in range(40)]
    app = told(reset([*family(), *chain(30)]), *events, focus="source")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        assert (await until_shown(pilot, "gr??e")).isascii()
        await until(pilot, lambda: tree(pilot).cursor_id == "source")
        for key, words in (("r", "delete them first"), ("question_mark", "Virtual machines"), ("F", "How many")):
            await pilot.press("escape", key)
            assert (await until_shown(pilot, words)).isascii(), screen_text(pilot)
            await pilot.press("escape")
        await pilot.press("j", "x")
        assert (await until_shown(pilot, "Stop fork-1?")).isascii(), screen_text(pilot)


async def test_without_colour_the_cursor_and_badges_are_reversed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j")
        picture = pilot.app.export_screenshot()
        assert set(re.findall(r"#[0-9a-f]{6}", picture.split("</style>")[1])) <= {
            "#c5c8c6",
            "#292929",
            "#ff5f57",
            "#febc2e",
            "#28c840",
        }
        strip = tree(pilot).render_line(2)
        assert all(segment.style and segment.style.reverse for segment in strip)
        corrupt = InstanceStatistics(id="fork-2", guest=Guest(corrupt="0x1000"))
        await hear(pilot, Statistics(at=BEGIN, clock=1.0, instances=(corrupt,), host=HostStatistics()))
        await until_shown(pilot, "CORRUPT")
        (badge,) = [segment for segment in tree(pilot).render_line(3) if "CORRUPT" in segment.text]
        assert badge.style and badge.style.reverse


@pytest.mark.parametrize("theme", ["forktui-dark", "forktui-light", "ansi-dark", "nord"])
async def test_every_theme_draws(theme: str) -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        before = tree(pilot).render_line(1)
        pilot.app.theme = "textual-light"
        pilot.app.theme = theme
        await pilot.pause()
        drawn = tree(pilot).render_line(1)
        assert drawn.text == before.text
        assert (drawn == before) == (theme == "forktui-dark")


# What must never be


HOSTILE = "\x1b]0;owned\x07[red]\x9b31m[/] [@click=app.quit]x"


def hostile_events() -> list[object]:
    """Escape sequences and markup in every text that a supervisor can send."""
    return [
        reset(
            [
                instance(
                    "vm",
                    state_error=HOSTILE,
                    exit_message=HOSTILE,
                    operation=Operation(verb=HOSTILE, step=HOSTILE, asked_by=HOSTILE),
                    image=HOSTILE,
                    source_id=None,
                ),
                instance("name").model_copy(update={"name": HOSTILE, "age": 1}),
            ],
            [InstanceStatistics(id="vm", guest=Guest(corrupt=HOSTILE))],
        ),
        Activity(at=BEGIN, level="alarm", message=HOSTILE),
    ]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_hostile_text_is_shown_as_text(size: tuple[int, int]) -> None:
    app = told(*hostile_events())  # type: ignore[arg-type]
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 2)
        for key in ("j", "d"):
            await pilot.press(key)
        await pilot.pause()
        await pilot.press("escape")
        app.dashboard.post_message(Said("[/] [red]x[/nothing]", "error"))
        text = await until_shown(pilot, "[/] [red]x[/nothing]")
        assert not set(text) & set(map(chr, [*range(32), *range(127, 160)])) - {"\n"}
        assert "[red]" in text
        assert "owned" in text


def calls(path: Path) -> list[ast.Call]:
    """Every call in a source file."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_nothing_is_drawn_as_markup() -> None:
    sources = sorted(Path(forktui.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    for path in sources:
        for call in calls(path):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name == "notify":
                assert {word.arg for word in call.keywords} >= {"markup"}, f"{path.name}:{call.lineno}"
            if name in ("Static", "Label", "Button") and call.args:
                plain = isinstance(call.args[0], ast.Constant) or "Text(" in ast.unparse(call.args[0])
                assert plain, f"{path.name}:{call.lineno} draws markup"
            assert name not in ("from_markup", "render_markup"), f"{path.name}:{call.lineno}"
