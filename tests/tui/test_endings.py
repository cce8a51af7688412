"""How a VM ended, or may have, as it is told on its row, in its details and among the alarms."""

from typing import Any

import pytest

from forktui.model.conditions import Kind, of_instance
from forktui.view.columns import BY_WORD
from forktui.view.facts import overview
from forktui.view.glyphs import UNICODE
from forktui.view.rows import text_of
from supervisor.models import InstanceStatistics, LastWords, State
from tests.harness.told_hosts import instance, world_of
from tests.tui.test_details import subject

SAID = LastWords(says="panic", line="---[ end Kernel panic - not syncing: x ]---")
STOPPED = {"state": State.STOPPED, "vmm_pid": None}
DIED = STOPPED | {"died": True}


@pytest.mark.parametrize(
    ("fields", "cell"),
    [
        (DIED | {"exit_reason": "panic"}, "✗ panic"),
        (DIED | {"exit_reason": "triple_fault"}, "✗ fault"),
        (DIED | {"exit_reason": "out_of_memory"}, "✗ memory"),
        (DIED | {"exit_reason": "killed"}, "✗ died"),
        (DIED, "✗ died"),
        (STOPPED | {"exit_reason": "reboot"}, "○ reboot"),
        (STOPPED | {"exit_reason": "stopped"}, "○ Stopped"),
        ({}, "● panic?"),
    ],
)
def test_the_state_of_a_row_tells_how_its_vm_ended(fields: dict[str, Any], cell: str) -> None:
    world = world_of(instance("vm", **fields), statistics=[InstanceStatistics(id="vm", last_words=SAID)])
    column = BY_WORD["state"]
    told = column.cell(world, world.instances["vm"], UNICODE)[0]
    assert told == cell
    assert len(told) <= column.width


@pytest.mark.parametrize(("fields", "hinted"), [({}, True), (STOPPED, False)])
def test_a_console_that_tells_of_an_end_is_a_hint_while_its_vm_goes_on(fields: dict[str, Any], hinted: bool) -> None:
    said = LastWords(says="halt", line="reboot: System halted")
    world = world_of(instance("vm", **fields), statistics=[InstanceStatistics(id="vm", last_words=said)])
    told = {fact.label: text_of(fact.value) for fact in overview(subject(world, "vm"))}
    hint = "its console says reboot: System halted; its VM goes on; stop it if that is so"
    assert told.get("halted?") == (hint if hinted else None)


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        ("panic", "its guest panicked: no init", "its guest panicked: no init"),
        ("triple_fault", "its guest ended in a triple fault", "its guest ended in a triple fault"),
        ("killed", "killed by SIGKILL", "its VMM died: killed by SIGKILL"),
        (None, None, "its VMM died: nobody knows how"),
    ],
)
def test_a_death_is_told_by_who_died(reason: Any, message: str | None, told: str) -> None:
    one = instance("vm", **DIED, exit_reason=reason, exit_message=message)
    assert of_instance(one, None) == {Kind.DIED: told}


def test_an_end_that_a_guest_wanted_is_no_alarm() -> None:
    assert of_instance(instance("vm", **STOPPED, exit_reason="reboot", exit_message="its guest rebooted"), None) == {}
