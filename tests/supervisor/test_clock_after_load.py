"""A load sets the guest's clock where the VMM's version can; the embedded VMM answers as the versions that do."""

from pathlib import Path
from typing import Any, cast

import pytest

from supervisor.embedded.config import CLOCK_FIELD, sets_clock, snapshot_load
from supervisor.embedded.refusals import MalformedError
from supervisor.errors import VmmError
from supervisor.models import ForkRequest, Phase
from supervisor.operations.transitions import Transitions
from supervisor.rules import firecracker_versions
from supervisor.rules.firecracker_versions import NO_CLOCK
from supervisor.runtime.stopwatch import Stopwatch
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord, ProcessIdentity, StartedVmm
from supervisor.store.registry import Registry
from tests.harness.firecracker_releases import AFFECTED, RELEASES
from tests.harness.standby_records import standby_record
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.verified_guests import standby_source, until_verified


@pytest.mark.parametrize("version", RELEASES)
def test_the_table_and_the_embedded_vmm_agree_on_who_can(version: str) -> None:
    can = version not in AFFECTED["clock-stays-behind"]
    assert firecracker_versions.sets_clock(version) is sets_clock(version) is can


def test_a_version_without_the_field_refuses_it() -> None:
    load = {"snapshot_path": "state", "mem_file_path": "mem", CLOCK_FIELD: True}
    snapshot_load(load)
    with pytest.raises(MalformedError, match="clock_realtime"):
        snapshot_load(load, clock=False)


@pytest.mark.parametrize(("version", "clock_set"), [("1.14.3", False), ("1.15.1", True), ("1.16.1", True)])
async def test_forks_and_restored_vms_say_whether_their_clock_was_set(
    embedded: Home, version: str, clock_set: bool
) -> None:
    embedded.options = ("--embedded-version", version)
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=1", "passes=0")
        for backend in ("uffd", "file"):
            request = ForkRequest(
                name=backend, share_memory=True, target_state="Running", memory_backend=cast(Any, backend)
            )
            assert (await client.fork("source", request)).clock_set is clock_set
        await until_verified(client, "uffd", "file")
        assert ("clock-stays-behind" in [one.name for one in (await client.instance("uffd")).known_faults]) is (
            not clock_set
        )
        await client.stop("uffd")
        assert (await client.start("uffd")).clock_set is False, "what boots has its clock from the host"


async def test_a_snapshot_that_has_no_clock_is_loaded_without_it(tmp_path: Path) -> None:
    asked: list[bool] = []

    class NoClock:
        """A VMM of 1.16 with a snapshot of a host that had no such time; it is not to be had here."""

        async def load(self, record: InstanceRecord, watch: Stopwatch) -> StartedVmm:
            asked.append(record.clock_set)
            watch.phases.append(Phase(name="spawn", milliseconds=1))
            if record.clock_set:
                raise VmmError(f"vm: PUT /snapshot/load refused: {NO_CLOCK}")
            return StartedVmm(ProcessIdentity(pid=2, start_time=0), "1.16.0", "8.0.0", ())

    inventory = Inventory(Registry(Layout(tmp_path, tmp_path)), lambda _: None)
    vmms, none = cast(Any, NoClock()), cast(Any, None)
    transitions = Transitions(inventory, vmms, none, none, none, lambda *_, **__: None)
    watch = Stopwatch([Phase(name="flatten", milliseconds=1)])
    started = await transitions._load(standby_record("vm", "vm"), watch)
    assert (asked, started.clock_set) == ([True, False], False)
    assert [phase.name for phase in watch.phases] == ["flatten", "spawn"]
    fork = standby_record("fork", "fork").model_copy(update={"template_id": "t"})
    for _ in range(2):
        assert not (await transitions._load(fork, Stopwatch())).clock_set
    assert asked == [True, False, True, False, False], "it is asked for once for all forks of a template"
