"""Forms on the screen: what is typed stays until the supervisor has taken it."""

import asyncio

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from forktui.client.api import ApiError
from forktui.tui.app import ForkTui
from forktui.tui.screens.dialogs import Confirm
from forktui.tui.screens.forms import FormDialog
from forktui.tui.widgets.text_field import Choice
from supervisor.models import (
    CreateRequest,
    FanOutRequest,
    FanOutResult,
    HostStatistics,
    ImageInfo,
    Instance,
    InstanceChanged,
    Operation,
    State,
    Statistics,
)
from tests.harness.pilot import Wishes, hear, host, screen_text, tree, until, until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import BEGIN, family, instance, locked_source, reset

pytestmark = pytest.mark.usefixtures("plain_environment")

DIALOGS = (
    (("F",), "8 take 144 MiB"),
    (("f",), "record"),
    (("n",), "vmlinux: gone"),
    (("A",), "changed"),
    (("d",), "That frees"),
    (("j", "x"), "Its disks"),
    (("t",), "let go of"),
    (("C",), "paused for milliseconds"),
)
"""The keys of each, one after the other, and what is said last of it."""


class Answering(RecordedSupervisor):
    """Has images and two hypervisors, refuses the first request and takes the next."""

    def __init__(self, *instances: Instance) -> None:
        super().__init__([reset(instances)])
        self.asked: list[object] = []
        self.let_go = asyncio.Event()

    async def images(self) -> list[ImageInfo]:
        boot = ImageInfo(name="pagewalker", status="ready", created_at=BEGIN, kind="boot")
        snapshot = ImageInfo(name="warm", status="ready", created_at=BEGIN, kind="snapshot")
        failed = ImageInfo(name="broken", status="failed", error="vmlinux: gone", created_at=BEGIN, kind="boot")
        return [boot, snapshot, failed]

    async def capabilities(self) -> dict[str, object]:
        return {"runtimes": [{"name": name, "available": True} for name in ("embedded", "firecracker")]}

    def _refuse_first(self, request: object) -> None:
        self.asked.append(request)
        if len(self.asked) == 1:
            raise ApiError(409, "name_taken", "web: create refused: the name is taken; take another")

    async def create(self, request: CreateRequest) -> Instance:
        self._refuse_first(request)
        return instance(request.name)

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        self.asked.append(request)
        await self.let_go.wait()
        return FanOutResult(children=(), milliseconds=1)


def form(pilot: Pilot[None]) -> FormDialog:
    """The form that is open."""
    screen = pilot.app.screen
    assert isinstance(screen, FormDialog)
    return screen


async def test_an_instance_is_made_of_an_image_and_a_refusal_loses_nothing_that_was_typed() -> None:
    supervisor = Answering()
    app = ForkTui(supervisor)
    async with app.run_test(size=(100, 36), notifications=True) as pilot:
        await until(pilot, lambda: app.dashboard.connection.live)
        await pilot.press("n")
        shown = await until_shown(pilot, "broken: failed: vmlinux: gone")
        assert "pagewalker: boots at once" in shown
        assert "[auto] embedded  firecracker" in shown
        await pilot.press(*"web", "tab", "right")
        await until_shown(pilot, "warm: a snapshot: begins in Standby")
        await pilot.press("down", *"64MB", "down", *"2", "enter")
        await until_shown(pilot, "web: create refused: the name is taken")
        await hear(pilot, Statistics(at=BEGIN, instances=(), host=HostStatistics(cpu_percent=77)))
        await until(pilot, lambda: app.dashboard.world.host.cpu_percent == 77)
        assert "web: create refused: the name is taken" in screen_text(pilot)
        assert form(pilot).values["name"] == "web"
        await pilot.press("shift+tab", "shift+tab", "shift+tab", "end", *"-2", "enter")
        await until_shown(pilot, "created: web-2 (Running)")
        assert app.screen is app.dashboard
    wanted = {"image": "warm", "size": "64MB", "vcpus": 2, "hypervisor": "auto"}
    assert [one.model_dump(include={*wanted}) for one in supervisor.asked] == [wanted, wanted]  # type: ignore[attr-defined]


async def test_what_is_refused_of_a_field_is_said_below_it_as_it_is_typed_and_by_enter() -> None:
    app = Wishes(ForkTui(Answering()))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.dashboard.connection.live)
        await pilot.press("n", *"Web")
        lines = (await until_shown(pilot, "'Web' is refused: it takes lowercase")).splitlines()
        at = next(number for number, line in enumerate(lines) if "'Web' is refused" in line)
        assert " name " in lines[at - 1]
        await pilot.press("tab", "tab", "tab", *"99", "enter")
        await until_shown(pilot, "'99' is refused")
        assert pilot.app.focused is form(pilot).query_one("#name", Input)
        assert app.wishes == []


async def test_a_form_closes_once_the_supervisor_is_at_it() -> None:
    source = locked_source("source", [])
    supervisor = Answering(source)
    app = ForkTui(supervisor)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("F", "enter")
        await until(pilot, lambda: supervisor.asked)
        await until_shown(pilot, "The supervisor is asked")
        busy = source.model_copy(update={"operation": Operation(verb="fan-out")})
        await hear(pilot, InstanceChanged(instance=busy))
        await until(pilot, lambda: app.screen is app.dashboard)
        supervisor.let_go.set()


async def test_the_number_that_is_typed_is_said_to_fit_and_a_large_one_is_asked_about() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(100, 36)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("F", *"16")
        await until_shown(pilot, "16 take 288 MiB")
        await pilot.press("backspace", "backspace", *"500", "enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await until_shown(pilot, "500 do not fit: at most 431 (memory)")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        assert app.wishes == []
        assert form(pilot).values["count"] == "500"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: app.wishes == [("fan-out", ("source",), 500)])
        assert app.values[0]["force"] == "true"


async def test_every_choice_is_made_with_the_arrows() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(100, 36)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("f", "down")
        for field, keys in (("target_state", ["right"]), ("memory_backend", ["space"]), ("prefetch", ["left"])):
            assert pilot.app.focused is form(pilot).query_one(f"#{field}", Choice)
            await pilot.press(*keys, "down")
        await until_shown(pilot, "before_resume  concurrent [off]")
        await pilot.press("enter")
        await until(pilot, lambda: app.wishes == [("fork", ("source",), 1)])
    chosen = {"name": "", "target_state": "Standby", "memory_backend": "file", "prefetch": "off", "record": "auto"}
    chosen |= {"readiness": "", "metadata": ""}
    assert app.values == [chosen]


async def test_a_form_says_that_its_instance_has_changed_and_does_nothing_that_is_refused_by_then() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(100, 36)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("F")
        running = family()[0].model_copy(update={"state": State.RUNNING})
        await hear(pilot, InstanceChanged(instance=running))
        await until_shown(pilot, "source was Standby and is Running")
        await pilot.press("enter")
        await until_shown(pilot, "Fan out refused: source is Running: press s to put it to standby first")
        assert app.wishes == []


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TEXTUAL_THEME", "ansi-dark")])
async def test_what_has_the_focus_is_seen_without_colours_of_our_own(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    app = Wishes(host(family()))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        for keys in (("F",), ("down",), ("down",), ("escape", "j", "x"), ("tab",)):
            await pilot.press(*keys)
            await until(pilot, lambda: app.screen is not app.dashboard)
            marked = [one for one in app.screen.query("TextField, Choice, Button") if one.rich_style.reverse]
            assert marked == [app.focused], keys


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TEXTUAL_THEME", "ansi-dark")])
async def test_of_two_answers_the_focused_one_has_a_frame_of_its_own(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("d")
        for _ in range(2):
            await until(pilot, lambda: app.screen is not app.dashboard)
            frames = {one is app.focused: one.styles.border_top[0] for one in app.screen.query("Button")}
            assert frames == {True: "double", False: "round"}
            await pilot.press("tab")


@pytest.mark.parametrize("characters", ["0", "1"])
async def test_a_dialog_is_whole_on_a_small_terminal(characters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKTUI_ASCII", characters)
    app = Wishes(ForkTui(Answering(*family())))
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        for keys, words in DIALOGS:
            await pilot.press(*keys)
            shown = await until_shown(pilot, words)
            box = app.screen.query_one(".dialog")
            assert app.screen.region.contains_region(box.region)
            assert box.max_scroll_y == 0, shown
            assert characters == "0" or shown.isascii()
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is app.dashboard)
