"""The dashboard's filter: what stays visible, and where the cursor is."""

import pytest
from textual.widgets import Input

from forktui.tui.screens.dashboard import Dashboard
from supervisor.models import InstanceDeleted
from tests.harness.pilot import Wishes, hear, host, shown_rows, tree, until
from tests.harness.told_hosts import FORKS, chain, family, instance

pytestmark = pytest.mark.usefixtures("plain_environment")


async def test_the_filter_keeps_sources_and_ends_with_escape() -> None:
    async with host([*family(), instance("other", age=9)]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork-2")
        await until(pilot, lambda: shown_rows(pilot) == ["source", "fork-2"])
        await pilot.press("enter")
        assert pilot.app.focused is tree(pilot)
        await pilot.press("j")
        assert tree(pilot).cursor_id == "fork-2"
        await pilot.press("escape")
        await until(pilot, lambda: shown_rows(pilot) == ["source", *FORKS, "other"])
        assert tree(pilot).cursor_id == "fork-2"


async def test_a_filter_puts_the_cursor_on_what_matches_and_not_on_what_leads_there() -> None:
    app = Wishes(host([*chain(3), *family()]))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert tree(pilot).cursor_id == "i0"
        await pilot.press("slash", *"fork-3")
        await until(pilot, lambda: shown_rows(pilot) == ["source", "fork-3"])
        assert tree(pilot).cursor_id == "fork-3"
        await pilot.press("enter", "d", "y")
        await until(pilot, lambda: app.wishes)
    assert app.wishes == [("delete", ("fork-3",), 1)]


async def test_the_cursor_is_on_a_match_also_where_the_one_it_was_on_goes() -> None:
    async with host([*family(), instance("other", age=9)]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork-x", "backspace", "enter")
        await until(pilot, lambda: shown_rows(pilot) == ["source", *FORKS])
        assert tree(pilot).cursor_id == "fork-1"
        await hear(pilot, InstanceDeleted(id="fork-1"))
        await until(pilot, lambda: shown_rows(pilot) == ["source", "fork-2", "fork-3"])
        assert tree(pilot).cursor_id == "fork-2"


async def test_enter_takes_the_cursor_from_a_source_to_its_first_match() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork", "enter", "k")
        assert tree(pilot).cursor_id == "source"
        await pilot.press("slash", "enter")
        assert tree(pilot).cursor_id == "fork-1"


async def test_keys_are_text_while_a_filter_is_typed() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"dqxf")
        assert pilot.app.screen.query_one("#filter", Input).value == "dqxf"
        assert isinstance(pilot.app.screen, Dashboard)
