"""What is shown of jails: on the line at the top, before there is an instance, and of each instance."""

from dataclasses import replace

import pytest

from forktui.model.filter import filter_of
from forktui.model.world import World
from forktui.tui.app import ForkTui
from forktui.view.facts import in_full, overview
from forktui.view.first_steps import Steps, first_steps
from forktui.view.panels import fact_lines, in_sections
from forktui.view.rows import text_of
from supervisor.models import Instance, Jails, Reset
from tests.harness.pilot import until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import SUPERVISOR, instance, reset, world_of
from tests.tui.test_guest_details import about, texts

pytestmark = pytest.mark.usefixtures("plain_environment")

WIDE = 400
LACKING = "there is no jailer beside Firecracker: name it with --jailer PATH"
IN_JAILS = Jails(mode="auto", jailed=True, page_servers=("uid", "seccomp"))
IN_NONE = Jails(mode="auto", jailed=False, problem=LACKING)
OFF = Jails(mode="off", jailed=False)
REAL = {"hypervisor": "firecracker", "vmm_pid": 4711}
"""An instance that runs on Firecracker."""


def world_with(jails: Jails | None, *instances: Instance) -> World:
    """What a supervisor tells that says this of its jails."""
    said = SUPERVISOR.model_copy(update={"hypervisor": "firecracker", "jails": jails})
    return replace(world_of(*instances), supervisor=said)


@pytest.mark.parametrize(
    ("jails", "fields", "told"),
    [
        (
            IN_JAILS,
            {**REAL, "jail_uid": 1879048200},
            "jail uid 1879048200 a root, a user and a cgroup of its own",
        ),
        (IN_JAILS, REAL, "jail none started before there were jails, or its machine has no place in one"),
        (IN_NONE, REAL, f"jail none {LACKING}"),
        (OFF, REAL, "jail none"),
        (IN_JAILS, {"hypervisor": "embedded", "vmm_pid": 1}, None),
        (IN_JAILS, {"hypervisor": "firecracker", "vmm_pid": None}, None),
    ],
)
def test_whether_a_vmm_is_in_a_jail_and_why_not(jails: Jails, fields: dict[str, object], told: str | None) -> None:
    subject = about(world_with(jails, instance("vm", **fields)))
    lines = [" ".join(line.split()) for line in texts(in_sections(in_full(subject, WIDE), WIDE)).splitlines()]
    assert [line for line in lines if line.startswith("jail ")] == ([told] if told else [])
    short = texts([line for fact in overview(subject) for line in fact_lines(fact, WIDE)])
    assert ("pid 4711 · jailed" in short) is ("jail_uid" in fields)


def test_why_there_are_no_jails_is_said_before_the_first_instance() -> None:
    def said(jails: Jails) -> str:
        return "\n".join(map(text_of, first_steps(SUPERVISOR.model_copy(update={"jails": jails}), Steps([], []), 300)))

    assert f"Firecracker runs in no jail here: {LACKING}." in said(IN_NONE)
    assert "jail" not in said(IN_JAILS) + said(OFF)


def test_those_in_jails_and_those_in_none_are_found() -> None:
    world = world_of(
        instance("in", **REAL, jail_uid=1879048200), instance("out", **REAL), instance("cold", vmm_pid=None)
    )
    for wanted, found in (("is:jailed", {"in"}), ("is:unjailed", {"out"})):
        is_so = filter_of(wanted).predicate(world)
        assert {one.name for one in world.instances.values() if is_so(one)} == found


@pytest.mark.parametrize(
    ("hypervisor", "jails", "told"),
    [
        ("firecracker", IN_JAILS, "Firecracker 1.12.1, jailed "),
        ("firecracker", IN_NONE, "Firecracker 1.12.1, not jailed "),
        ("firecracker", OFF, "Firecracker 1.12.1, not jailed "),
        ("firecracker", None, "Firecracker 1.12.1 "),
        ("embedded", IN_JAILS, "embedded VMM (simulated CPU) "),
    ],
)
async def test_the_line_at_the_top_says_whether_vms_are_jailed(hypervisor: str, jails: Jails | None, told: str) -> None:
    about = {"hypervisor": hypervisor, "hypervisor_version": "1.12.1", "jails": jails}
    whole = reset([]).snapshot
    event = Reset(snapshot=whole.model_copy(update={"supervisor": SUPERVISOR.model_copy(update=about)}))
    async with ForkTui(RecordedSupervisor([event])).run_test(size=(120, 20)) as pilot:
        assert told in await until_shown(pilot, told.partition(" ")[0])
