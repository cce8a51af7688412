"""What is said of an instance's guest: whether it is ready, and what it is told, without drawing it."""

from collections.abc import Sequence

import pytest

from forktui.model.family import family_of
from forktui.model.world import World
from forktui.text.safe import safe_model
from forktui.view.columns import BY_WORD
from forktui.view.facts import in_full, overview
from forktui.view.glyphs import UNICODE
from forktui.view.panels import fact_lines, in_sections
from forktui.view.styled_lines import Line
from forktui.view.subject import Subject
from supervisor.models import MachineInfo
from tests.harness.told_hosts import BEGIN, instance, world_of

WIDE = 400


def texts(lines: Sequence[Line]) -> str:
    """Lines without their inks."""
    return "\n".join("".join(part for part, _ in line) for line in lines)


def about(world: World, machine: MachineInfo | None = None) -> Subject:
    """The only instance of a world."""
    (one,) = world.instances.values()
    return Subject(world, one, family_of(world, one.id), UNICODE, machine=machine)


@pytest.mark.parametrize(
    ("fields", "row", "detail"),
    [
        ({}, "Running", None),
        ({"readiness": "console:login:"}, "unready", "ready     not yet, waits for console:login:"),
        (
            {"readiness": "vsock:52", "ready_at": BEGIN, "ready_ms": 1250.0},
            "Running",
            "ready     after 1.2 s  vsock:52",
        ),
    ],
)
def test_whether_its_guest_is_ready_is_told_on_the_row_and_in_the_details(
    fields: dict[str, object], row: str, detail: str | None
) -> None:
    world = world_of(instance("vm", **fields))
    shown, _ = BY_WORD["state"].cell(world, world.instances["vm"], UNICODE)
    assert row in shown
    said = texts([line for fact in overview(about(world)) for line in fact_lines(fact, WIDE)])
    assert (detail in said) if detail else ("ready" not in said)
    assert detail is None or detail.split()[-1] in texts(in_sections(in_full(about(world), WIDE), WIDE))


def test_what_a_guest_is_told_of_itself_is_shown_as_safe_text() -> None:
    told = {"role\x1b[2J": "web\nhost", "list": [1, {"a": "\u202e"}]}
    machine = MachineInfo(id="fork-1", directory="/d", configured=True, metadata_ways=("drive",), metadata=told)
    world = world_of(instance("fork-1", number=7))
    said = texts(in_sections(in_full(about(world, safe_model(machine)), WIDE), WIDE))
    assert "it is fork-1, number 7  by its disk metadata" in said
    assert "web host" in said and '[1, {"a": ""}]' in said
    assert "\x1b" not in said and "\u202e" not in said
