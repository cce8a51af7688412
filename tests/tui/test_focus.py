"""Who has the focus is seen without colour, and the mouse presses the keys of the footer."""

import pytest
from textual.pilot import Pilot

from forktui.tui.widgets.key_bar import KeyBar
from tests.harness.pilot import Wishes, host, screen_text, tree, until, until_shown
from tests.harness.told_hosts import family

pytestmark = pytest.mark.usefixtures("plain_environment")


def looks(pilot: Pilot[None]) -> list[tuple[str, bool, bool, bool]]:
    """The screen without its colours: each piece of text, and whether it is reversed, underlined, bold."""
    strips = pilot.app.screen._compositor.render_strips()
    segments = [segment for strip in strips for segment in strip]
    styles = [(segment.text, segment.style) for segment in segments if segment.style]
    return [(text, bool(style.reverse), bool(style.underline), bool(style.bold)) for text, style in styles]


@pytest.mark.parametrize("theme", ["forktui-dark", "forktui-light", "ansi-dark", "nord"])
@pytest.mark.parametrize("ascii_only", ["0", "1"])
async def test_the_focus_of_every_pane_is_seen_without_colour(
    theme: str, ascii_only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORKTUI_ASCII", ascii_only)
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        pilot.app.theme = theme
        await pilot.pause()
        seen = []
        for is_next in (lambda: not tree(pilot).has_focus, lambda: tree(pilot).has_focus):
            seen.append(looks(pilot))
            await pilot.press("tab")
            await until(pilot, is_next)
            await pilot.pause()
        assert seen[0] != seen[1]
        assert looks(pilot) == seen[0], "the tree has it again"
        cursor = [[underline for text, _, underline, _ in look if "source" in text] for look in seen]
        assert (any(cursor[0]), any(cursor[1])) == (False, True)
        titles = [reverse for text, reverse, *_ in seen[1] if text == "events"]
        assert titles == [True]
        assert not any(reverse for text, reverse, *_ in seen[0] if text == "events")


async def test_a_click_on_a_key_of_the_footer_does_its_action() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await until_shown(pilot, "q Quit")
        footer = screen_text(pilot).splitlines()[-1]
        await pilot.click(KeyBar, offset=(footer.index("f Fork") + 2, 0))
        await until_shown(pilot, "Fork source")
        await pilot.press("enter")
        await until(pilot, lambda: app.wishes == [("fork", ("source",), 1)])
        await pilot.click(KeyBar, offset=(footer.index("? Help") - 1, 0))
        await pilot.pause()
        await pilot.click(KeyBar, offset=(footer.index("? Help"), 0))
        await until_shown(pilot, "Virtual machines")
        await pilot.press("escape", "space")
        footer = (await until_shown(pilot, "1 marked")).splitlines()[-1]
        await pilot.click(KeyBar, offset=(footer.index("d Delete"), 0))
        await until_shown(pilot, "Delete ")
