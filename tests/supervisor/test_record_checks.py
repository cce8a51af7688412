"""Records that are well-formed and cannot be true are set aside with a reason, and the sound ones beside them kept."""

import random
import re
import tempfile
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.rules.lineage import Descent, forest, in_circles
from supervisor.store.layout import Layout
from supervisor.store.registry import Registry
from tests.harness.record_sets import (
    SNAPSHOT,
    Fields,
    family,
    fork,
    identity,
    instance,
    loaded,
    running,
    template,
    write,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Layout(tmp_path / "data", tmp_path))


ROOT = identity("a", "root")
READY = identity("a", "ready")
TEMPLATE = identity("a", "troot")
IMPOSSIBLE: list[tuple[str, Fields, str]] = [
    ("ready", {"source_id": READY}, "it is its own source"),
    ("ready", {"vmm_snapshot_version": "new"}, "snapshot version: 'new' is none"),
    ("ready", {"vmm_snapshot_version": "7"}, "snapshot version: '7' is none"),
    ("ready", {"vmm_snapshot_version": "7.0\n"}, "snapshot version: '7.0.n' is none"),
    ("ready", {"source_id": "../" + READY}, "source_id: '../areadyx.* is no id"),
    ("ready", {"source_id": None}, "a fork has one and a fork_kind"),
    ("ready", {"fork_kind": None, "template_id": None, "attached": False}, "a fork has one and a fork_kind"),
    ("ready", {"template_id": "t"}, "template_id: 't' is no id"),
    ("ready", {"template_id": None}, "attached: it has no template"),
    ("ready", {"fork_kind": "copy"}, "only a share_memory fork has one"),
    ("ready", {"let_go": "booted"}, "let_go: who holds no lock any more is a copy"),
    ("ready", {"template_id": identity("a", "tready")}, "is of instance areadyx.*, not of its source"),
    ("served", {"size_bytes": 64 << 20}, "memory of another size"),
    ("ready", {"name": "a-root"}, "name: a-root is instance aroot"),
    ("grandchild", {"process": {"pid": 102, "start_time": 100}}, "process: pid 102 is instance abooted"),
    ("booted", {"id": ROOT}, "id: 'arootx.*' is not the name of its directory"),
    ("booted", {"size_bytes": 0}, "size_bytes: 0 is no number of pages"),
    ("booted", {"size_bytes": -4096}, "size_bytes: -4096"),
    ("booted", {"size_bytes": 4097}, "size_bytes: 4097"),
    ("booted", {"size_bytes": 10**30}, "size_bytes: 10"),
    ("booted", {"page_size": 0}, "page_size: 0 is neither 4096 nor 2097152"),
    ("booted", {"page_size": 2 << 20, "size_bytes": 3 << 20}, "size_bytes"),
    ("booted", {"vcpus": 0}, "vcpus: 0 is not in the range of 1 to 32"),
    ("booted", {"vcpus": 33}, "vcpus: 33"),
    ("booted", {"next_layer": -1}, "next_layer: -1"),
    ("booted", {"console_offset": -1}, "console_offset: -1"),
    ("booted", {"console_offset": 1 << 63}, "console_offset"),
    ("booted", {"process": None}, "process: it is missing, and a VM that is Running has one"),
    ("booted", {"process": {"pid": 0, "start_time": 1}}, r"process.pid: 0"),
    ("booted", {"process": {"pid": -1, "start_time": 1}}, r"process.pid: -1"),
    ("booted", {"process": {"pid": 1, "start_time": 1}}, r"process.pid: 1"),
    ("booted", {"process": {"pid": 1 << 40, "start_time": 1}}, r"process.pid"),
    ("booted", {"process": {"pid": 9, "start_time": -1}}, r"process.start_time"),
    ("booted", {"state": "Stopped"}, "process: one that is Stopped has none"),
    ("booted", {"state": "Unknown", "process": None}, "state: Unknown"),
    ("booted", {"created_at": "2026-01-01T00:00:00"}, "created_at: .* is no time with a zone"),
    ("booted", {"started_at": "9999-12-31T23:59:59-12:00"}, "started_at"),
    ("booted", {"phases": [{"name": "boot", "milliseconds": float("inf")}]}, "phases: inf ms is no duration"),
    ("booted", {"exit_code": 1 << 70}, "exit_code"),
    ("booted", {"exit_message": "x" * 5000}, "exit_message: it is longer"),
    ("booted", {"firecracker_version": "1" * 5000}, "firecracker_version: it is longer"),
    ("booted", {"devices": ["vsock", "\u001b]0;it"]}, "devices: "),
    ("copy", {"snapshot": None}, "snapshot: it is missing, and a Standby instance has one"),
    ("copy", {"next_layer": 3}, "next_layer: 3 is not above the number of state.3"),
    *(
        ("copy", {"snapshot": {**SNAPSHOT, "state": name}}, "snapshot.state: .* is not state. and a number")
        for name in ("", ".", "../state.1", "/etc/passwd", "state.1\0", ".state.1", "mem.1", "state.01", "state.\u0663")
    ),
    *(
        ("copy", {"snapshot": {**SNAPSHOT, "layers": layers}}, "snapshot.layers")
        for layers in ([], ["mem.1", "mem.1"], ["mem.1", "../mem.0"], ["/mem.1"], ["vm.json"], ["mem.1.new"])
    ),
    *(
        ("troot", {"layers": layers}, "layers: ")
        for layers in (
            [], ["mem.1"], [f"templates/{READY}/mem.1"], [f"templates/{TEMPLATE}/../{TEMPLATE}/mem.1"],
            [f"/templates/{TEMPLATE}/mem.1"], [f"instances/{READY}/mem.1"], [f"templates/{TEMPLATE}/template.json"],
            [f"instances/{ROOT}/mem.1", f"templates/{TEMPLATE}/mem.0"],
        )
    ),
    ("troot", {"id": READY}, "is not the name of its directory"),
    ("troot", {"instance_id": "root"}, "instance_id: 'root' is no id"),
    ("troot", {"instance_id": identity("a", "booted")}, "is Running, and a template is a Standby instance's"),
    ("tready", {"instance_id": ROOT}, f"instance_id: {ROOT} has template {TEMPLATE} already"),
    ("troot", {"size_bytes": 64 << 20}, "memory of another size"),
    ("troot", {"page_size": 5}, "page_size: 5"),
    ("troot", {"recorded_pages": -1}, "recorded_pages: -1"),
    ("troot", {"recorded_pages": 1 << 40}, "recorded_pages"),
    ("troot", {"sampled_wanted": 2, "sampled_pages": 1}, "sampled_wanted: 2"),
    ("troot", {"page_server": {"pid": -1, "start_time": 1}}, "process.pid: -1"),
]  # fmt: skip


@pytest.mark.parametrize(("member", "changes", "reason"), IMPOSSIBLE)
def test_a_record_that_cannot_be_true_is_set_aside_with_the_reason(
    registry: Registry, member: str, changes: Fields, reason: str
) -> None:
    instances, templates = family("a", 100)
    ids = [fields["id"] for fields in (*instances, *templates)]
    (changed,) = [fields for fields in (*instances, *templates) if fields["id"] == identity("a", member)]
    changed.update(changes)
    write(registry, instances, templates, ids)
    found = registry.load()
    ((directory, aside),) = {**found.unreadable, **found.unreadable_templates}.items()
    assert directory == identity("a", member)
    assert re.search(reason, aside.reason), aside.reason
    assert aside.reason.isprintable()
    assert len(found.instances) + len(found.templates) == len(ids) - 1


@pytest.mark.parametrize("length", [2, 3, 50])
def test_a_circle_is_set_aside_whole_and_what_is_below_it_stays(registry: Registry, length: int) -> None:
    free: Fields = {"fork_kind": "copy", "template_id": None, "attached": False}
    circle = [fork("c", f"m{number}", f"m{(number + 1) % length}", **free) for number in range(length)]
    below = [fork("c", "below", "m0", **free), fork("c", "deeper", "below", **free)]
    found = loaded(registry, [*below, *circle], [])
    assert sorted(found.unreadable) == sorted(fields["id"] for fields in circle)
    assert all("in a circle of sources" in one.reason for one in found.unreadable.values())
    assert [record.name for record in found.instances] == ["c-below", "c-deeper"]


def test_the_oldest_keeps_a_name_and_the_one_that_forks_read_is_the_template(registry: Registry) -> None:
    first = instance("z", "first", name="one", created_at="2026-01-01T00:00:00Z")
    second = instance("a", "second", name="one", created_at="2026-01-03T00:00:00Z")
    third = instance("a", "third", name="two", created_at="2026-01-04T00:00:00Z")
    read = {**template("z", "first"), "id": identity("z", "u"), "layers": [f"templates/{identity('z', 'u')}/mem.1"]}
    found = loaded(
        registry,
        [second, first, third, fork("z", "reader", "first", template_id=read["id"])],
        [template("z", "first"), read],
    )
    assert [record.name for record in found.instances] == ["one", "z-reader", "two"]
    assert [one.name for one in found.unreadable.values()] == ["one"]
    assert [one.id for one in found.templates] == [read["id"]]


def test_what_is_written_in_the_middle_of_a_transition_and_was_written_before_is_believed(registry: Registry) -> None:
    unfinished: Fields = {**running(7), "snapshot_unfinished": True}
    instances = [
        instance("a", "new", state="Created", intent="create", snapshot=None, next_layer=0, memory_backend=None),
        instance("a", "former", state="Created", snapshot=None, next_layer=0, record_hot_pages=True),
        instance("a", "boots", **{**running(5), "state": "Initializing"}),
        instance("a", "snapshotted", process={"pid": 6, "start_time": 1}),
        instance("a", "restoring", intent="restore"),
        instance("a", "snapshotting", **unfinished),
        instance("a", "started", state="Stopped", snapshot=None, intent="start", exit_code=0),
        instance("a", "source"),
        fork("a", "half", "source", intent="fork"),
        fork("a", "rebooted", "source", **{**running(8), "attached": False, "memory_backend": None, "snapshot": None}),
        fork("a", "orphan", "gone"),
    ]
    for one in instances[1:4]:
        del one["page_size"]
    # The first templates' layers were their instances' own.
    first = {**template("a", "source"), "layers": [f"instances/{identity('a', 'source')}/mem.3"], "layer_marks": []}
    found = loaded(registry, instances, [first])
    assert (found.unreadable, found.unreadable_templates) == ({}, {})
    assert len(found.instances) == len(instances)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30),
    st.lists(st.text(max_size=9), max_size=3),
    st.dictionaries(st.sampled_from(["pid", "start_time", "state", "layers"]), st.integers() | st.text(max_size=9)),
    st.sampled_from(["Running", "Standby", "Stopped", "share_memory", "copy", "uffd", "2026-01-01T00:00:00"]),
)  # fmt: skip


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.lists(VALUES, max_size=6))
def test_whatever_is_changed_in_records_loading_ends_and_the_sound_ones_are_there(seed: int, values: list[Any]) -> None:
    chance = random.Random(seed)
    instances, templates = family("a", 100)
    sound = family("b", 200)
    ids = [fields["id"] for fields in (*instances, *templates)]
    for _ in range(chance.randint(1, 8)):
        changed, other = chance.choice([*instances, *templates]), chance.choice([*instances, *templates])
        key = chance.choice(list(changed))
        pool = [other.get(key), chance.choice(list(other.values())), chance.choice(ids), *values]
        changed[chance.choice([key, "source_id"])] = deepcopy(chance.choice(pool))
    with tempfile.TemporaryDirectory() as directory:
        registry = Registry(Layout(Path(directory), Path(directory)))
        write(registry, instances, templates, ids)
        write(registry, *sound, [fields["id"] for fields in chain(*sound)])
        found = registry.load()
    kept = {record.id for record in found.instances}
    assert kept | set(found.unreadable) == {*ids[: len(instances)], *(one["id"] for one in sound[0])}
    assert kept >= {one["id"] for one in sound[0]}
    assert {one.id for one in found.templates} >= {one["id"] for one in sound[1]}
    assert len({record.name for record in found.instances}) == len(found.instances)
    built = forest(Descent(one.id, one.name, one.source_id, one.fork_kind) for one in found.instances)
    for record in found.instances:
        assert record.id not in built.descendants(record.id)
        assert len(built.generations(record.id)) <= len(kept)


@given(st.dictionaries(st.integers(0, 12), st.integers(0, 12) | st.none(), max_size=13))
def test_circles_are_found_and_no_walk_goes_round_in_one(sources: dict[int, int | None]) -> None:
    members = {str(one): None if source is None else str(source) for one, source in sources.items()}

    def returns(first: str) -> bool:
        at = members[first]
        for _ in members:
            if at is None or at == first:
                break
            at = members.get(at)
        return at == first

    assert in_circles(members) == {one for one in members if returns(one)}
    built = forest(Descent(one, one, source, "copy") for one, source in members.items())
    for one in members:
        for walk in (built.ancestors(one), built.descendants(one)):
            assert one not in walk
            assert len(set(walk)) == len(walk)
        generations = [each for generation in built.generations(one) for each in generation]
        assert sorted(generations) == sorted((one, *built.descendants(one)))
