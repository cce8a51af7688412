"""What the supervisor owns, in memory and on disk: concurrent changes, names, references."""

import asyncio
from pathlib import Path

import pytest

from supervisor.errors import BadRequestError, NameConflictError, NotFoundError
from supervisor.models import Event, InstanceChanged, TemplateChanged, TemplateDeleted
from supervisor.store.inventory import Inventory
from supervisor.store.layout import TEMPLATE_RECORD, Layout
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.store.registry import Registry
from tests.harness.standby_records import standby_record


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def inventory(tmp_path: Path, events: list[Event]) -> Inventory:
    registry = Registry(Layout(tmp_path, tmp_path))
    registry.open()
    return Inventory(registry, events.append)


async def add(inventory: Inventory, one: InstanceRecord) -> None:
    with inventory.reserved(one.name, one.id):
        await inventory.add(one, lambda _: None)


def template() -> TemplateRecord:
    return TemplateRecord(
        id="t",
        instance_id="a1",
        layers=("instances/a1/mem.0",),
        size_bytes=1 << 20,
        page_size=4096,
        hypervisor="embedded",
        snapshot_version="1.0.0",
    )


async def test_changes_of_one_template_at_the_same_time_are_all_kept_in_memory_and_on_disk(
    inventory: Inventory,
) -> None:
    await add(inventory, standby_record("a1", "source"))
    await inventory.add_template(template(), lambda directory: None)
    await asyncio.gather(
        *(
            inventory.update_template("t", **{field: number})
            for number in range(1, 21)
            for field in ("recorded_pages", "recorded_runs", "page_server_restarts")
        )
    )
    present = inventory.templates["t"]
    assert (present.recorded_pages, present.recorded_runs, present.page_server_restarts) == (20, 20, 20)
    written = (inventory.layout.template("t") / TEMPLATE_RECORD).read_bytes()
    assert TemplateRecord.model_validate_json(written) == present


async def test_a_template_that_is_gone_takes_no_change(inventory: Inventory, events: list[Event]) -> None:
    await add(inventory, standby_record("a1", "source"))
    await inventory.add_template(template(), lambda directory: None)
    await asyncio.gather(inventory.remove_template("t"), inventory.update_template("t", recorded_pages=1))
    assert inventory.registry.load().templates == []
    assert events[-1] == TemplateDeleted(id="t")


async def test_who_records_a_template_is_told_of_the_fork_and_of_the_template(
    inventory: Inventory, events: list[Event]
) -> None:
    await add(inventory, standby_record("a1", "source"))
    await inventory.add_template(template(), lambda directory: None)
    await add(inventory, standby_record("f1", "fork", "a1"))
    for template_id, recorder in (("t", "f1"), (None, None)):
        events.clear()
        inventory.publisher.set_recording("f1", template_id)
        fork, changed = events
        assert isinstance(fork, InstanceChanged)
        assert isinstance(changed, TemplateChanged)
        assert (fork.instance.recording, changed.template.recording_fork) == (recorder is not None, recorder)
    events.clear()
    inventory.publisher.set_recording("f1", None)
    assert events == [], "nothing has changed"


async def test_a_fork_that_lets_go_of_its_source_records_its_template_no_more(inventory: Inventory) -> None:
    await add(inventory, standby_record("a1", "source"))
    await inventory.add_template(template(), lambda directory: None)
    fork = standby_record("f1", "fork", "a1").model_copy(update={"template_id": "t"})
    await add(inventory, fork)
    inventory.publisher.set_recording("f1", "t")
    await inventory.save(fork.model_copy(update={"fork_kind": "copy", "template_id": None}))
    assert inventory.publisher.recorder("t") is None


async def test_references_are_ids_names_and_unique_prefixes(inventory: Inventory) -> None:
    for one in (standby_record("abcde1", "one"), standby_record("abcde2", "two"), standby_record("xyzzy3", "abcde1x")):
        await add(inventory, one)
    assert inventory.resolve("abcde1").name == "one"
    assert inventory.resolve("two").id == "abcde2"
    assert inventory.resolve("xyzz").id == "xyzzy3"
    with pytest.raises(BadRequestError, match=r"2 ids begin so \(one, two\)"):
        inventory.resolve("abcd")
    for unknown in ("", "q", "xyz", "abcde19"):
        with pytest.raises(NotFoundError):
            inventory.resolve(unknown)


async def test_a_name_is_taken_from_its_reservation_until_its_instance_is_gone(inventory: Inventory) -> None:
    with inventory.reserved("one", "a1"), inventory.reserved("one", "a1"):
        with pytest.raises(NameConflictError, match="taken by instance a1"), inventory.reserved("one", "b2"):
            raise AssertionError
        assert next(inventory.free_names("one")) == "one-1"
    await add(inventory, standby_record("b2", "one"))
    with pytest.raises(NameConflictError, match="taken by instance b2"), inventory.reserved("one", "c3"):
        raise AssertionError
    await inventory.remove(inventory.resolve("one"))
    with inventory.reserved("one", "c3"):
        pass


async def test_a_lock_is_counted_from_the_records_of_the_forks(inventory: Inventory) -> None:
    await add(inventory, standby_record("a1", "source"))
    forks = [standby_record(f"f{number}", f"fork-{number}", "a1") for number in range(20)]
    for fork in forks:
        await add(inventory, fork)
    source = inventory.publisher.view(inventory.resolve("source"))
    assert (source.fork_count, source.mem_locked, len(source.locked_by)) == (20, True, 16)
    for fork in forks:
        await inventory.remove(fork)
    assert not inventory.publisher.view(inventory.resolve("source")).mem_locked
