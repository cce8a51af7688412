"""Known faults of Firecracker's versions over the socket: what is done about them, and what is said of each.

The embedded VMM answers as the versions that are not to be had here.
"""

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.errors import DependencyMissingError
from supervisor.guests.pagewalker import MIB
from supervisor.models import CreateRequest, ForkRequest, Instance, State
from supervisor.rules.firecracker_versions import FIRST_SLOT_BYTES, TESTED
from supervisor.runtime.known_faults import check_boots
from supervisor.settings import SettingsError, load_settings
from supervisor.store.records import InstanceRecord
from supervisor.vmm.hypervisor import Hypervisor
from tests.harness.firecracker_releases import AFFECTED, RELEASES, known, least_machine
from tests.harness.layers_on_disk import SHARED, chain, checkpoint, directory, record
from tests.harness.pagewalker_images import write_image
from tests.harness.supervisor_process import Home, gathered, supervisor, walking_source
from tests.harness.verified_guests import one_more_pass, until_verified

TWO_SLOTS: Final = f"{FIRST_SLOT_BYTES // MIB + 1}MB"
ONE_SLOT: Final = f"{FIRST_SLOT_BYTES // MIB}MB"
WORDS: Final = ("hot_mib=1", "passes=0")


def answering_as(home: Home, version: str) -> Home:
    home.options = ("--embedded-version", version)
    return home


async def runtime(client: SupervisorClient, name: str = "embedded") -> dict[str, Any]:
    runtimes = (await client.capabilities())["runtimes"]
    assert isinstance(runtimes, list)
    return next(one for one in runtimes if one["name"] == name)


def faults(instance: Instance) -> list[str]:
    return [fault.name for fault in instance.known_faults]


@pytest.mark.parametrize(
    ("version", "size", "layers"),
    [
        ("1.12.1", TWO_SLOTS, (1, 2, 3)),
        ("1.14.0", TWO_SLOTS, (1, 1, 1)),
        ("1.14.1", ONE_SLOT, (1, 2, 3)),
        ("1.14.2", TWO_SLOTS, (1, 2, 3)),
        ("1.15.0-dev", TWO_SLOTS, (1, 1, 1)),
    ],
)
async def test_a_version_whose_diffs_of_several_slots_are_corrupt_writes_whole_snapshots_of_them(
    embedded: Home, version: str, size: str, layers: tuple[int, ...]
) -> None:
    """By checkpoint, by a copy of a Running instance, and by standby; a fork of the last verifies its memory."""
    async with supervisor(answering_as(embedded, version)) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="pagewalker", size=size, cmd=WORDS))
        assert source.firecracker_version == version
        await one_more_pass(client, "source")
        one = await checkpoint(client, source, "one")
        two = await client.fork("source", ForkRequest(name="two", from_running=True, target_state="Standby"))
        three = await client.standby("source")
        assert tuple(len(chain(embedded, made)) for made in (one, two, three)) == layers
        assert ("diff-of-several-slots" in faults(three)) is (layers[-1] == 1)
        await client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        await until_verified(client, "fork")
        assert len(chain(embedded, await client.standby("fork"))) == layers[-1] + (1 if layers[-1] > 1 else 0)


async def test_the_version_that_runs_a_vm_decides_and_not_the_one_that_would_be_started(embedded: Home) -> None:
    async with supervisor(answering_as(embedded, "1.14.1")) as running:
        await running.client.create(CreateRequest(name="old", image="pagewalker", size=TWO_SLOTS, cmd=WORDS))
        await one_more_pass(running.client, "old")
    async with supervisor(answering_as(embedded, "1.14.2")) as running:
        client = running.client
        old = await client.instance("old")
        assert (old.firecracker_version, "diff-of-several-slots" in faults(old)) == ("1.14.1", True)
        assert (await checkpoint(client, old, "one")).layers == 1
        assert (await client.standby("old")).layers == 1
        new = await client.restore("old")
        assert (new.firecracker_version, "diff-of-several-slots" in faults(new)) == ("1.14.2", False)
        assert (await checkpoint(client, new, "two")).layers == 2
        await until_verified(client, "old")


@pytest.mark.parametrize("version", ["1.12.1", "1.13.0", "1.16.1"])
async def test_a_load_passes_the_field_for_dirty_tracking_that_the_version_knows(embedded: Home, version: str) -> None:
    async with supervisor(answering_as(embedded, version)) as running:
        client = running.client
        await walking_source(client, "source", *WORDS)
        await client.standby("source")
        await client.restore("source")
        assert (await client.standby("source")).layers == 2


@pytest.mark.parametrize("version", ["1.12.1", "1.13.2", "1.14.1", "1.14.4", "1.15.0", "1.16.0", "1.16.1"])
async def test_capabilities_say_which_faults_a_version_has_and_what_is_done(embedded: Home, version: str) -> None:
    async with supervisor(answering_as(embedded, version)) as running:
        told = await runtime(running.client)
    assert (told["version"], told["tested"], told["notice"]) == (version, version in TESTED, None)
    assert [fault["name"] for fault in told["known_faults"]] == known(version)
    assert all(fault["what"] and fault["doing"] and fault["source"] for fault in told["known_faults"])


async def test_a_version_that_no_table_knows_is_said_to_be_one(embedded: Home) -> None:
    async with supervisor(answering_as(embedded, "1.99.0")) as running:
        told = await runtime(running.client)
    assert told["notice"] == "1.99.0 is newer than 1.16.1, the last whose changes were read"
    assert not told["tested"]


async def test_the_embedded_vmm_by_itself_has_none_of_firecrackers_faults(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        told = await runtime(running.client)
        assert (told["tested"], told["notice"], told["known_faults"]) == (True, None, [])
        source = await walking_source(running.client, "source", *WORDS)
        assert (source.firecracker_version, source.known_faults) == (None, ())


async def test_an_instance_tells_each_fault_that_concerns_it(embedded: Home) -> None:
    """One Standby instance for each row, whose record says that its VM has what the row concerns."""
    rows = [name for name in AFFECTED if name not in ("too-old", "unreadable-state-file")]
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", *WORDS)
        await client.standby("source")
        made = [await client.fork("source", ForkRequest(name=name, target_state="Standby")) for name in rows]
    for name, instance in zip(rows, made, strict=True):
        machine, version = least_machine(name), AFFECTED[name][-1]
        if name == "old-tracking-field":
            version = "1.12.1"
        changed = record(embedded, instance).model_copy(
            update={
                "firecracker_version": version,
                "devices": tuple(sorted(machine.devices)),
                "track_dirty_pages": machine.tracked,
                "size_bytes": -(-max(machine.size_bytes, instance.size_bytes) // MIB) * MIB,
            }
        )
        write(embedded, instance, changed)
    async with supervisor(embedded) as running:
        told = {one.name: faults(one) for one in await running.client.instances()}
    assert told["source"] == []
    assert [name for name in rows if name not in told[name]] == []
    assert "vsock-ports-reused" not in told["console-stops"]
    assert "diff-misses-discards" not in told["vsock-ports-reused"]


def write(home: Home, instance: Instance, changed: InstanceRecord) -> None:
    (directory(home, instance) / "instance.json").write_text(changed.model_dump_json())


async def test_a_machine_that_a_version_may_not_run_is_refused_before_anything_is_started(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await walking_source(running.client, "source", *WORDS)
        source = await running.client.standby("source")
    write(embedded, source, record(embedded, source).model_copy(update={"devices": ("memory-hotplug",)}))
    async with supervisor(answering_as(embedded, "1.15.0")) as running:
        client = running.client
        for refused in await gathered(client.restore("source"), client.fork("source", SHARED)):
            assert isinstance(refused, ApiError)
            assert (refused.status, refused.code) == (501, "dependency_missing")
            assert "source: Firecracker 1.15.0 is refused for it (hotplug-slots): A guest keeps access" in str(refused)
        assert (await client.instance("source")).state is State.STANDBY
        assert [one.name for one in await client.instances()] == ["source"]
    async with supervisor(answering_as(embedded, "1.15.1")) as running:
        await running.client.restore("source")
        await until_verified(running.client, "source")


async def test_a_version_that_is_too_old_boots_nothing(embedded: Home) -> None:
    async with supervisor(answering_as(embedded, "1.11.0")) as running:
        with pytest.raises(ApiError, match=r"source: Firecracker 1.11.0 is refused for it \(too-old\): The handshake"):
            await running.client.create(CreateRequest(name="source", image="pagewalker"))
        assert await running.client.instances() == []


@pytest.mark.parametrize(
    ("version", "config", "refused"),
    [
        ("1.14.3", {"memory-hotplug": {"total_size_mib": 1024}}, True),
        ("1.14.4", {"memory-hotplug": {"total_size_mib": 1024}}, False),
        ("1.15.0", {"memory-hotplug": None, "balloon": {"amount_mib": 1, "deflate_on_oom": False}}, False),
        ("1.15.0", ["memory-hotplug"], False),
    ],
)
def test_a_configuration_that_a_version_may_not_boot_is_refused(
    tmp_path: Path, version: str, config: object, refused: bool
) -> None:
    (tmp_path / "vm.json").write_text(json.dumps(config))
    record = InstanceRecord(
        id="i", name="web", image="alpine", state=State.CREATED, hypervisor="firecracker", size_bytes=MIB, vcpus=1,
        created_at=datetime.now(UTC),
    )  # fmt: skip
    hypervisor = Hypervisor("firecracker", ("firecracker",), version, "8.0.0")
    with pytest.raises(DependencyMissingError, match=r"web: .*hotplug-slots") if refused else nullcontext():
        check_boots(record, hypervisor, tmp_path / "vm.json")


DEVICES = {
    "vsock": {"guest_cid": 3, "uds_path": "v.sock"},
    "balloon": {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1},
}


async def test_a_real_firecracker_tells_its_version_and_the_faults_that_concern_its_devices(
    firecracker_home: Home,
) -> None:
    write_image(firecracker_home.data / "images" / "devices", DEVICES)
    async with supervisor(firecracker_home) as running:
        client = running.client
        told = await runtime(client, "firecracker")
        version = told["version"]
        if version not in RELEASES:
            pytest.skip(f"Firecracker {version} is none of the releases that are known")
        assert [fault["name"] for fault in told["known_faults"]] == known(version)
        source = await client.create(CreateRequest(name="source", image="devices"))
        assert source.firecracker_version == version
        of_devices = {name for name in known(version) if name.startswith(("vsock-", "balloon-"))}
        assert set(faults(source)) >= of_devices
        assert "console-stops" not in faults(source), "it was booted"
        assert "diff-misses-discards" not in faults(source), "its first snapshot has nothing below it"
        await client.standby("source")
        fork = await client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        assert fork.firecracker_version == version
        assert set(faults(fork)) == {
            name for name in known(version)
            if name not in ("too-old", "diff-of-several-slots", "diff-by-mincore", "hotplug-slots", "async-drive-hangs",
                            "unreadable-state-file")
        }  # fmt: skip
        await client.delete("source", cascade=True)


def test_a_version_to_answer_as_has_to_be_one() -> None:
    with pytest.raises(SettingsError, match="embedded-version"):
        load_settings({"embedded_version": "newest"})
    assert load_settings({"embedded_version": "1.14.0-dev"}).embedded_version == "1.14.0-dev"
