"""Keys that are typed faster than they are done."""

import sys

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from forktui.tui.screens.forms import FormDialog
from tests.harness.own_terminal import on_a_terminal
from tests.harness.pilot import Wishes, host, tree, until, until_shown
from tests.harness.told_hosts import family

pytestmark = pytest.mark.usefixtures("plain_environment")

PROGRAM = """
from tests.harness.pilot import Wishes, host
from tests.harness.told_hosts import family

app = Wishes(host(family()))
app.run()
print("wished", app.wishes)
"""


def burst(pilot: Pilot[None], *keys: str) -> None:
    """Type keys without waiting for what any of them does."""
    driver = pilot.app._driver
    assert driver is not None
    for key in keys:
        driver.send_message(events.Key(key, key if len(key) == 1 else None))


async def test_a_number_that_is_typed_over_another_is_what_is_asked_for() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("F")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        burst(pilot, *"20", "backspace", "backspace", *"9999")
        count = app.screen.query_one("#count", Input)
        await until(pilot, lambda: count.value == "9999")
        burst(pilot, "home", *"1", "delete", "end", *"7", "left", "backspace", "enter")
        await until_shown(pilot, "1997 do not fit")
        assert count.value == "1997"


async def test_what_is_typed_for_a_dialog_goes_to_it_though_it_is_not_there_yet() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        burst(pilot, "F", *"3", "enter", "j", "d", "y", "slash", *"fork-3", "enter", "x", "enter", "d", "y")
        await until(pilot, lambda: len(app.wishes) == 3)
        assert app.wishes == [("fan-out", ("source",), 3), ("delete", ("fork-1",), 1), ("delete", ("fork-3",), 1)]


async def test_a_paste_has_its_place_among_keys() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        burst(pilot, "slash", *"a", "backspace")
        assert pilot.app._driver is not None
        pilot.app._driver.send_message(events.Paste("fork"))
        burst(pilot, *"-3", "enter", "d", "y")
        await until(pilot, lambda: app.wishes == [("delete", ("fork-3",), 1)])


def test_a_burst_on_a_terminal_arrives_in_order() -> None:
    with on_a_terminal(sys.executable, "-c", PROGRAM) as (terminal, _):
        terminal.until("fork-3")
        terminal.press("F20\x7f\x7f7\rq")
        terminal.until("wished [('fan-out', ('source',), 7)]")
