"""Admission: the estimate against its definition and against what forks really take, and refusals with numbers."""

import asyncio
import json
import os
import re
import resource
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.client.api import ApiError, SupervisorClient
from supervisor.errors import InsufficientResourcesError
from supervisor.models import FAN_OUT_LIMIT, FanOutRequest, FanOutResult, ForkRequest, ResourceEstimate, ResourceName
from supervisor.rules.capacity import (
    FILLING_SECONDS,
    MIB,
    PrivateMemory,
    Resource,
    Sibling,
    check,
    estimate,
    private_memory,
)
from supervisor.system import headroom
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, guest, sample, supervisor, until, walking_source
from tests.harness.verified_guests import standby_source

NAMES: list[ResourceName] = ["memory", "disk", "descriptors", "page_server_descriptors", "processes"]
RESOURCES = st.lists(
    st.builds(
        Resource,
        st.sampled_from(NAMES),
        st.integers(0, 1 << 30),
        st.none() | st.integers(-(1 << 20), 1 << 40),
        st.just("a test"),
    ),
    max_size=5,
    unique_by=lambda one: one.name,
)


@given(st.integers(1, FAN_OUT_LIMIT), RESOURCES)
def test_what_fits_is_the_most_that_every_resource_is_enough_for(count: int, resources: list[Resource]) -> None:
    found = estimate(count, resources)
    bounded = [one for one in resources if one.available is not None and one.per_fork]
    assert 0 <= found.fits <= FAN_OUT_LIMIT
    for one in bounded:
        assert one.available is not None
        assert found.fits == 0 or found.fits * one.per_fork <= one.available
    if found.limiting is not None:
        (limiting,) = (one for one in bounded if one.name == found.limiting)
        assert limiting.available is not None
        assert (found.fits + 1) * limiting.per_fork > limiting.available
    else:
        assert found.fits == FAN_OUT_LIMIT
    if count <= found.fits:
        check("vm", found)
    else:
        with pytest.raises(InsufficientResourcesError) as caught:
            check("vm", found)
        assert f"fan-out of {count} refused" in caught.value.message
        assert {detail["code"] for detail in caught.value.details} == {
            row.name for row in found.resources if row.fits is not None and row.fits < count
        }


def grown(*sizes: int) -> list[Sibling]:
    return [Sibling(size, FILLING_SECONDS) for size in sizes]


def young(*sizes: int) -> list[Sibling]:
    return [Sibling(size, FILLING_SECONDS - 0.1) for size in sizes]


@pytest.mark.parametrize(
    ("siblings", "hot", "data", "expected", "to_fill", "basis"),
    [
        ([], 0, 40, 46, 0, "all that its memory image holds and a VMM"),
        ([], 0, 400, 106, 0, "all that its memory image holds and a VMM"),
        ([], 16, 40, 22, 0, "the recorded hot pages and a VMM"),
        ([], 400, 40, 106, 0, "the recorded hot pages and a VMM"),
        (grown(30), 16, 40, 30, 0, "what 1 running fork has"),
        (grown(12), 16, 40, 12, 0, "what 1 running fork has"),
        (grown(0), 16, 40, 22, 0, "the recorded hot pages and a VMM"),
        (grown(*range(10, 110, 10)), 16, 40, 90, 0, "what 10 running forks have"),
        (young(0, 2), 16, 40, 22, 42, "what 2 running forks are to have: the recorded hot pages and a VMM"),
        (young(2), 0, 40, 46, 44, "what 1 running fork is to have: all that its memory image holds and a VMM"),
        (young(30, 2), 16, 40, 30, 20, "what 2 running forks have"),
        (grown(12) + young(2), 16, 40, 22, 20, "what 2 running forks are to have: the recorded hot pages and a VMM"),
        (grown(12) + young(2), 0, 40, 12, 10, "what 2 running forks are to have: what 1 running fork has"),
        (grown(50) + young(2), 16, 40, 50, 20, "what 2 running forks have"),
    ],
)
def test_private_memory_is_estimated_from_the_best_that_is_known(
    siblings: list[Sibling], hot: int, data: int, expected: int, to_fill: int, basis: str
) -> None:
    assert private_memory(siblings, hot, data, 100, 6) == PrivateMemory(expected, to_fill, basis)


SIBLINGS = st.lists(st.builds(Sibling, st.integers(0, 1 << 10), st.floats(0, 2 * FILLING_SECONDS)), max_size=12)
SIZES = st.tuples(st.integers(0, 1 << 10), st.integers(0, 1 << 10), st.integers(1, 1 << 10), st.integers(1, 1 << 5))


def fits(siblings: list[Sibling], sizes: tuple[int, int, int, int], left: int) -> int:
    """How many forks fit into what is left of the host beside these siblings."""
    found = private_memory(siblings, *sizes)
    (row,) = estimate(1, [Resource("memory", found.per_fork, left - found.to_fill, found.basis)]).resources
    assert row.fits is not None
    return row.fits


@given(SIBLINGS, SIZES)
def test_while_a_sibling_is_young_the_estimate_is_the_hot_pages_at_least(
    siblings: list[Sibling], sizes: tuple[int, int, int, int]
) -> None:
    hot, _, size, _ = sizes
    found = private_memory([*siblings, *young(0)], *sizes)
    assert found.per_fork >= min(hot, size)
    for one in siblings:
        if one.age_seconds < FILLING_SECONDS:
            assert found.to_fill >= min(hot, size) - one.private_bytes


@given(SIBLINGS, SIZES, st.integers(1, 64), st.integers(0, 1 << 16))
def test_a_fan_out_that_is_yet_to_fill_leaves_room_for_so_many_fewer(
    siblings: list[Sibling], sizes: tuple[int, int, int, int], count: int, left: int
) -> None:
    """Whatever they have filled so far, which is gone from what is left; once they are full they are a measure."""
    before = fits(siblings, sizes, left)
    expected = private_memory([*siblings, *young(0)], *sizes).to_fill - private_memory(siblings, *sizes).to_fill
    for filled in {0, expected // 2, expected}:
        beside = fits([*siblings, *young(*[filled] * count)], sizes, left - filled * count)
        assert beside <= before or filled == expected
        assert beside <= max(left - expected * count, 0) // expected


@given(SIBLINGS, SIZES, st.integers(0, 1 << 10), st.integers(0, 1 << 16))
def test_no_more_fit_with_more_hot_pages_or_with_less_left(
    siblings: list[Sibling], sizes: tuple[int, int, int, int], more: int, left: int
) -> None:
    hot, *others = sizes
    if hot:
        assert fits(siblings, (hot + more, *others), left) <= fits(siblings, sizes, left)  # type: ignore[arg-type]
    assert fits(siblings, sizes, max(left - more, 0)) <= fits(siblings, sizes, left)


def test_a_refusal_names_the_limit_the_numbers_and_what_would_do() -> None:
    rows = [Resource("memory", 34 << 20, 4 << 30, "what 8 running forks have"), Resource("disk", 1 << 16, None, "x")]
    with pytest.raises(InsufficientResourcesError) as caught:
        check("web", estimate(500, rows))
    assert caught.value.message == (
        "web: fan-out of 500 refused: the host has memory for 120: each takes 34.0 MiB (what 8 running forks have), "
        "and 4096 MiB can be had: 12904 MiB missing; ask for at most 120, or give force=true"
    )


def test_what_the_kernel_tells_is_read() -> None:
    memory = headroom.memory()[0]
    assert memory.amount is not None
    assert 0 < memory.amount < psutil.virtual_memory().total
    processes = headroom.processes()
    assert processes.amount is not None
    assert 0 < processes.amount < int(Path("/proc/sys/kernel/pid_max").read_text())
    before = headroom.descriptors(os.getpid()).amount
    with Path("/dev/null").open("rb"):
        after = headroom.descriptors(os.getpid()).amount
    assert before is not None
    assert after == before - 1
    free = headroom.disk(Path("/")).amount
    assert free is not None
    assert free <= psutil.disk_usage("/").total


# Over the socket


async def shares(client: SupervisorClient, source: str = "source") -> dict[str, ResourceEstimate]:
    return {row.name: row for row in (await client.fan_out_estimate(source, FanOutRequest(count=1))).resources}


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_the_shares_are_what_forks_take(home: Home) -> None:
    forks = 6
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client)
        cold = await shares(client)
        assert "image" in cold["memory"].basis
        await client.fork("source", ForkRequest(name="warm", share_memory=True, target_state="Running"))
        host = await until(lambda host: any(t.recorded_pages for t in host.templates), client)
        await client.delete("warm")
        recorded = await shares(client)
        assert "hot pages" in recorded["memory"].basis

        server = host.templates[0].page_server_pid
        assert server is not None
        before = open_files(running.process.pid), open_files(server)
        result = await client.fan_out("source", FanOutRequest(count=forks))
        assert all(child.error is None for child in result.children)
        names = [child.name for child in result.children]
        host = await until(lambda host: all(guest(host, name).passes >= 1 for name in names), client)
        after = open_files(running.process.pid), open_files(server)
        for row, opened in (("descriptors", after[0] - before[0]), ("page_server_descriptors", after[1] - before[1])):
            assert forks * (recorded[row].per_fork - 2) <= opened <= forks * recorded[row].per_fork, row
        pids = [child.instance.vmm_pid for child in result.children if child.instance is not None]
        tasks = max(psutil.Process(pid).num_threads() for pid in pids if pid is not None)
        assert recorded["processes"].per_fork - 2 <= tasks <= recorded["processes"].per_fork
        most = max(sample(host, name).private_bytes for name in names)
        assert 0.6 * recorded["memory"].per_fork < most < 1.2 * recorded["memory"].per_fork
        siblings = await shares(client)
        assert f"{forks} running forks" in siblings["memory"].basis
        assert siblings["memory"].per_fork <= cold["memory"].per_fork
        await client.delete("source", cascade=True)


async def test_forks_that_are_yet_to_fill_count_as_what_they_will_have(embedded: Home) -> None:
    """Forks that are stopped before they have walked their memory are no measure, and theirs is kept for them."""
    # One page a fault: they are stopped long before the end of their first pass.
    embedded.options = ("--fault-around-pages", "1")
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=32")
        await client.fork("source", ForkRequest(name="warm", share_memory=True, target_state="Running"))
        await until(lambda host: any(t.recorded_pages and not t.recording_fork for t in host.templates), client)
        await client.delete("warm")
        await walking_source(client, "other", "hot_mib=4")
        await client.standby("other")
        before, other = (await shares(client))["memory"], (await shares(client, "other"))["memory"]
        assert (before.per_fork >= 32 * MIB, "yet to fill" in before.basis) == (True, False)

        result = await client.fan_out("source", FanOutRequest(count=2, prefetch="off"))
        vmms = [psutil.Process(child.instance.vmm_pid) for child in result.children if child.instance is not None]
        for vmm in vmms:
            vmm.suspend()
        names = [child.name for child in result.children]
        host = await until(lambda host: all(sample(host, name).private_bytes for name in names), client)
        missing = sum(before.per_fork - sample(host, name).private_bytes for name in names)
        assert missing > 32 * MIB
        beside = await shares(client)
        assert beside["memory"].per_fork >= before.per_fork
        assert "what 2 running forks are to have: the recorded hot pages" in beside["memory"].basis
        # Whichever source the next forks are of.
        others = await shares(client, "other")
        assert others["memory"].per_fork == other.per_fork
        for found in (beside, others):
            assert 0 < kept(found["memory"]) <= missing / MIB + 1

        for vmm in vmms:
            vmm.resume()
        host = await until(lambda host: all(guest(host, name).passes for name in names), client)
        full = 0.6 * before.per_fork
        await until(lambda host: all(sample(host, name).private_bytes > full for name in names), client)
        assert kept((await shares(client))["memory"]) < missing / MIB / 2
        for name in ("source", "other"):
            await client.delete(name, cascade=True)


def kept(memory: ResourceEstimate) -> float:
    """Return how much is kept for young forks, in MiB; 0 where the basis tells of none."""
    found = re.search(r"less (\d+) MiB that young forks are yet to fill", memory.basis)
    return float(found[1]) if found else 0.0


async def test_a_fan_out_that_does_not_fit_is_refused_with_numbers_and_can_be_forced(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        # A real limit on the real process: room for ten forks, and for the requests of this test.
        limit = open_files(running.process.pid) + 50
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, 20000))
        found = await client.fan_out_estimate("source", FanOutRequest(count=50))
        assert found.limiting == "descriptors"
        assert 8 <= found.fits <= 10
        error = await refused(client.fan_out("source", FanOutRequest(count=50)))
        assert (error.status, error.code) == (409, "insufficient_resources")
        assert "the host has descriptors for " in error.message
        assert "force=true" in error.message
        assert [detail.code for detail in error.details] == ["descriptors", "insufficient_resources"]
        assert len(await client.instances()) == 1
        # What is asked for without running takes no descriptors.
        stopped = FanOutRequest(count=20, target_state="Standby", name_prefix="asleep")
        assert all(child.error is None for child in (await client.fan_out("source", stopped)).children)
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (open_files(running.process.pid) + 12, 20000))
        assert (await refused(client.fan_out("source", FanOutRequest(count=4)))).code == "insufficient_resources"
        result = await client.fan_out("source", FanOutRequest(count=4, concurrency=1, force=True))
        assert len(result.children) == 4
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (20000, 20000))
        await client.delete("source", cascade=True)
    assert embedded.processes() == []


async def test_a_dry_run_is_refused_as_the_fan_out_would_be(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", "hot_mib=4")
        for request in (FanOutRequest(count=1), FanOutRequest(count=1, from_running=True, share_memory=False)):
            dry = await refused(client.fan_out_estimate("source", request))
            real = await refused(client.fan_out("source", request))
            assert (dry.status, dry.message) == (real.status, real.message)
        await client.delete("source")


async def test_the_forks_of_a_source_whose_files_are_gone_are_not_estimated(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client)
        file = embedded.data / "instances" / source.id / "vm.json"
        drive = {"drive_id": "data", "path_on_host": "gone.img", "is_root_device": False, "is_read_only": False}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"drives": [drive]}))
        error = await refused(client.fan_out_estimate(source.id, FanOutRequest(count=1)))
        assert (error.status, error.code) == (409, "machine_file_changed")
        assert "gone.img is gone" in error.message
        await client.delete(source.id)


async def test_a_second_fan_out_is_estimated_beside_what_the_first_has(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        # For nine with what the API opens meanwhile, and not for six more beside those.
        limit = open_files(running.process.pid) + 60
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, 20000))
        first = await client.fan_out("source", FanOutRequest(count=9, name_prefix="one"))
        # All that they take is open once their page maps were read.
        made = [child.name for child in first.children]
        await until(lambda host: all(sample(host, name).total_pages for name in made), client)
        error = await refused(client.fan_out("source", FanOutRequest(count=9, name_prefix="two")))
        assert error.code == "insufficient_resources", json.dumps(error.message)
        await client.delete("source", cascade=True)


async def test_of_two_fan_outs_at_once_the_second_is_estimated_beside_what_the_first_is_promised(
    embedded: Home,
) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=4")
        limit = open_files(running.process.pid) + 60
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, 20000))
        outcomes = await asyncio.gather(
            *(client.fan_out("source", FanOutRequest(count=9, name_prefix=prefix)) for prefix in ("one", "two")),
            return_exceptions=True,
        )
        (made,) = [outcome for outcome in outcomes if isinstance(outcome, FanOutResult)]
        assert [child.error for child in made.children] == [None] * 9
        (error,) = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
        assert error.code == "insufficient_resources", error.message
        await client.delete("source", cascade=True)
