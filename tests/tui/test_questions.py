"""What is asked before a verb, and what its form takes: as values."""

import pytest

from forktui.actions.creation import CREATE, cannot_run, hypervisors, image_line, image_lines
from forktui.actions.deletion import DELETE
from forktui.actions.fan_out_estimate import LARGE, estimate_lines, question
from forktui.actions.forks import CHECKPOINT, FAN_OUT, FORK
from forktui.actions.registry import VERBS
from forktui.actions.states import DETACH, RESTORE, STOP
from forktui.model.reducing import reduce
from forktui.view.meanwhile import changes
from supervisor.models import (
    FanOutEstimate,
    ImageInfo,
    Instance,
    InstanceStatistics,
    ResourceEstimate,
    State,
    Template,
    TemplateChanged,
)
from tests.harness.told_hosts import BEGIN, FORKS, family, fork_of, instance, locked_source, world_of

MIB = 1 << 20


def test_only_what_loses_something_is_asked_about() -> None:
    world = world_of(instance("vm", fork_kind="share_memory"))
    asked = {verb.word for verb in VERBS if verb.question(world, list(world.instances.values())) is not None}
    assert asked == {"delete", "stop", "detach"}


def test_a_detached_fork_is_said_to_go_on_only_where_it_runs() -> None:
    runs, rests = fork_of("source", "one"), fork_of("source", "two", state=State.STANDBY)
    world = world_of(runs, rests)

    def says(*targets: object) -> tuple[str, ...]:
        asked = DETACH.question(world, targets)  # type: ignore[arg-type]
        assert asked is not None
        return asked.says

    assert says(runs)[0] == "It gets all of its memory: 128 MiB at most."
    assert says(runs, runs)[0] == "Each gets all of its memory: 256 MiB in all at most."
    assert "The guest goes on" in says(runs)[1]
    assert says(rests)[0] == "It keeps its snapshot."
    assert "goes on" not in "".join(says(rests))


def test_a_stop_says_what_is_lost_and_what_stays() -> None:
    world = world_of(instance("vm"), statistics=[InstanceStatistics(id="vm", private_bytes=18 * MIB)])
    asked = STOP.question(world, list(world.instances.values()))
    assert asked is not None
    assert asked.says == (
        "vm  Running, 18 MiB private",
        "",
        "What is in memory is lost: 18 MiB private; no snapshot is written.",
        "Its disks and its place in the tree stay; r boots it anew.",
    )


def test_a_restore_is_asked_about_where_recorded_pages_are_lost() -> None:
    world = world_of(instance("vm", state=State.STANDBY))
    targets = list(world.instances.values())
    assert RESTORE.question(world, targets) is None
    template = Template(
        id="t", instance_id="vm", size_bytes=128 * MIB, page_size=4096, fork_count=0, layers=1, recorded_pages=4118
    )
    asked = RESTORE.question(reduce(world, TemplateChanged(template=template)), targets)
    assert asked is not None
    assert "4118 recorded hot pages" in asked.says[0]


def test_a_fork_that_would_boot_anew_is_asked_about() -> None:
    stopped = [fork_of("source", name, state=State.STOPPED) for name in FORKS]
    rests, alone = fork_of("source", "rests", state=State.STANDBY), instance("alone", state=State.STOPPED)
    world = world_of(locked_source("source", ["rests"]), *stopped, rests, alone)

    def says(*targets: Instance) -> tuple[str, str, str]:
        asked = RESTORE.question(world, targets)
        assert asked is not None
        return asked.asked, asked.yes, " ".join(asked.says)

    assert RESTORE.question(world, [alone]) is None
    assert RESTORE.question(world, [rests]) is None
    asked, yes, one = says(stopped[0])
    assert (asked, yes) == ("Start fork-1?", "Start")
    assert one.startswith("fork-1: Stopped, thus without memory. It boots anew from its image,")
    asked, yes, many = says(*stopped, rests)
    assert (asked, yes) == ("Restore 4 instances?", "Restore")
    assert many.startswith("3 of them: Stopped, thus without memory. They boot anew from their images,")


def test_a_whole_tree_waits_for_its_plan_and_goes_by_cascade() -> None:
    world = world_of(*family())
    asked = DELETE.question(world, [world.instances["source"]])
    assert asked is not None
    assert (asked.asked, asked.planned, asked.adds) == (
        "Delete source and the 3 forks below it?",
        True,
        {"cascade": "true"},
    )
    many = DELETE.question(world, list(world.instances.values()))
    assert many is not None
    assert (many.asked, many.planned, many.adds) == ("Delete 4 instances?", False, {})


def test_a_fork_of_what_runs_is_a_copy_without_the_options_of_shared_memory() -> None:
    world = world_of(*family())
    copied, shared = (FORK.form(world, [world.instances[i]]) for i in ("fork-1", "source"))  # type: ignore[misc]
    guest = ["readiness", "metadata"]
    assert [field.name for field in copied.fields] == ["name", "target_state", *guest]
    shares = ["memory_backend", "prefetch", "record"]
    assert [field.name for field in shared.fields] == ["name", "target_state", *shares, *guest]
    assert "A copy" in copied.says[0]


def test_many_have_no_name_in_common() -> None:
    world = world_of(*family())
    targets = [world.instances[i] for i in FORKS]
    for verb in (FORK, CHECKPOINT):
        assert verb.form is not None
        assert "name" not in [field.name for field in verb.form(world, targets).fields]


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({}, {}),
        ({"count": " 12 "}, {}),
        ({"count": ""}, {"count": "it is missing, and required"}),
        ({"count": "12a"}, {"count": "'12a' is refused: it should be a valid integer, unable to parse"}),
        ({"name_prefix": "web-"}, {"name_prefix": "'web-' is refused: it takes lowercase letters"}),
        ({"name_prefix": "a" * 60}, {"name_prefix": "is refused: it should have at most 58"}),
        ({"concurrency": "65"}, {"concurrency": "'65' is refused: it should be less than or equal to 64"}),
        ({"count": "0", "concurrency": "0"}, {"count": "'0' is refused", "concurrency": "'0' is refused"}),
    ],
)
def test_each_field_is_refused_by_itself(values: dict[str, str], refused: dict[str, str]) -> None:
    world = world_of(locked_source("source", []))
    assert FAN_OUT.form is not None
    form = FAN_OUT.form(world, list(world.instances.values()))
    said = form.refused({**form.defaults, **values})
    assert said.keys() == refused.keys()
    assert all(reason in said[name] for name, reason in refused.items())


def test_a_name_that_there_is_already_is_refused_before_the_supervisor_is_asked() -> None:
    world = world_of(*family())
    assert CREATE.form is not None
    form = CREATE.form(world, [])
    assert form.refused({**form.defaults, "name": "fork-1"}) == {
        "name": "'fork-1' is refused: there is an instance of that name"
    }
    assert form.refused({**form.defaults, "name": "web"}) == {}
    assert form.request({**form.defaults, "name": "web", "cmd": "a b"}) == {
        "name": "web",
        "image": "pagewalker",
        "hypervisor": "auto",
        "track_dirty_pages": "true",
        "cmd": ["a", "b"],
    }


def estimate(count: int, fits: int) -> FanOutEstimate:
    """An estimate by which 18 MiB are taken by each."""
    memory = ResourceEstimate(
        name="memory",
        per_fork=18 * MIB,
        needed=18 * MIB * count,
        available=18 * MIB * fits,
        fits=fits,
        basis="measured on 3 forks",
    )
    return FanOutEstimate(count=count, fits=fits, limiting="memory", resources=(memory,))


def test_a_number_is_said_to_fit_or_not_with_what_it_takes() -> None:
    assert estimate_lines(estimate(8, 100)) == (
        "fits: up to 100 (memory)",
        "8 take 144 MiB of 1.8 GiB memory",
    )
    copying = estimate(8, 100).model_copy(update={"copied_bytes": 4 << 30})
    assert estimate_lines(copying)[1] == "8 take 144 MiB of 1.8 GiB memory; each copies 4 GiB of disks first"
    assert estimate_lines(estimate(8, 5))[0] == "8 do not fit: at most 5 (memory)"


def test_a_large_number_is_asked_about_and_one_that_does_not_fit_is_forced_by_a_yes() -> None:
    assert question(estimate(LARGE - 1, 1000)) is None
    large, forced = question(estimate(LARGE, 1000)), question(estimate(8, 5))
    assert large is not None
    assert forced is not None
    assert (large.asked, large.yes, large.adds) == ("Make 100 forks?", "Make them", {})
    assert "100 take 1.8 GiB" in large.says[1]
    assert (forced.yes, forced.adds) == ("Force", {"force": "true"})
    assert "measured on 3 forks" in forced.says


def image(name: str, **fields: object) -> ImageInfo:
    """An image that boots, but for what is given."""
    values: dict[str, object] = {"name": name, "status": "ready", "created_at": BEGIN, "kind": "boot", **fields}
    return ImageInfo.model_validate(values)


def test_an_image_is_said_with_how_it_begins_or_why_it_cannot_be_used() -> None:
    broken = image("broken", status="failed", error="vmlinux: no such file; put it there")
    snapshot = image("warm", kind="snapshot", hypervisor="firecracker", memory_bytes=128 * MIB)
    assert image_line(image("alpine")) == "alpine: boots at once"
    assert image_line(snapshot) == "warm: a snapshot: begins in Standby, 128 MiB, firecracker only"
    assert image_line(broken) == "broken: failed: vmlinux: no such file; put it there"
    assert image_lines([broken, snapshot, image("alpine")], "alpine") == (
        "alpine: boots at once",
        "broken: failed: vmlinux: no such file; put it there",
    )
    many = [broken.model_copy(update={"name": f"b{n}"}) for n in range(9)]
    assert image_lines(many, "alpine")[-1] == "and 3 more that cannot be used: forktui images"


def test_the_hypervisor_is_a_question_where_there_are_two() -> None:
    both = [{"name": "embedded", "available": True}, {"name": "firecracker", "available": True}]
    assert hypervisors({"runtimes": both}) == ("auto", "embedded", "firecracker")
    assert hypervisors({"runtimes": both[:1]}) == ("auto",)
    assert hypervisors({"runtimes": [both[0], {"name": "firecracker", "available": False}]}) == ("auto",)
    assert hypervisors({"runtimes": "none"}) == ("auto",)


def test_what_has_gone_or_changed_meanwhile_is_named() -> None:
    before = family()
    assert changes(before, world_of(*before)) == []
    after = world_of(before[0], before[1].model_copy(update={"state": State.STOPPED}))
    assert changes(before, after) == ["fork-2, fork-3 have gone meanwhile", "fork-1 was Running and is Stopped"]


def test_a_hypervisor_that_cannot_run_is_told_with_what_mends_it() -> None:
    missing = {"name": "firecracker", "available": False, "unavailable_reason": "there is none\x1b: install it"}
    there = {"name": "embedded", "available": True}
    assert cannot_run({"runtimes": [there, missing]}) == ("firecracker cannot run here: there is none�: install it",)
    assert cannot_run({"runtimes": [there]}) == cannot_run({}) == ()
