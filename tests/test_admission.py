"""Admission: the estimate against its definition and against what forks really take, and refusals with numbers."""

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.client import ApiError, SupervisorClient
from supervisor import headroom
from supervisor.admission import Resource, check, estimate, private_memory
from supervisor.errors import InsufficientResourcesError
from supervisor.models import FAN_OUT_LIMIT, FanOutRequest, FanOutResult, ForkRequest, ResourceEstimate, ResourceName
from tests.supervisor_process import Home, guest, sample, supervisor, until, walking_source

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


@pytest.mark.parametrize(
    ("siblings", "hot", "data", "expected", "basis"),
    [
        ([], 0, 40, 46, "image"),
        ([], 0, 400, 106, "image"),
        ([], 16, 40, 22, "hot pages"),
        ([30], 16, 40, 30, "1 running"),
        ([*range(10, 110, 10)], 16, 40, 90, "10 running"),
    ],
)
def test_private_memory_is_estimated_from_the_best_that_is_known(
    siblings: list[int], hot: int, data: int, expected: int, basis: str
) -> None:
    found, source = private_memory(siblings, hot, data, 100, 6)
    assert found == expected
    assert basis in source


def test_a_refusal_names_the_limit_the_numbers_and_what_would_do() -> None:
    rows = [Resource("memory", 34 << 20, 4 << 30, "what 8 running forks have"), Resource("disk", 1 << 16, None, "x")]
    with pytest.raises(InsufficientResourcesError) as caught:
        check("web", estimate(500, rows))
    assert caught.value.message == (
        "web: fan-out of 500 refused: the host has memory for 120: each takes 34.0 MiB (what 8 running forks have), "
        "and 4096 MiB can be had: 12904 MiB missing; ask for at most 120, or give force=true"
    )


def test_what_the_kernel_tells_is_read() -> None:
    memory = headroom.memory()
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


def test_the_cgroups_of_this_process_are_found() -> None:
    """Each controller's folder has this process's cgroup files, whichever version the host has."""
    told = {line.split(":")[1] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for controller in ("memory", "pids"):
        folders = [folder for folder, version in headroom._folders(controller) if version == 1]
        if any(controller in names.split(",") for names in told):
            assert folders
            assert all((folder / "cgroup.procs").exists() for folder in folders)


# Over the socket


@pytest.fixture(params=["embedded", "firecracker"])
def home(request: pytest.FixtureRequest, run_dir: Path) -> Iterator[Home]:
    binary = request.getfixturevalue("firecracker") if request.param == "firecracker" else None
    made = Home(run_dir, request.param, binary)
    yield made
    made.kill_everything()


@pytest.fixture
def embedded(run_dir: Path) -> Iterator[Home]:
    made = Home(run_dir)
    yield made
    made.kill_everything()


async def refused(work: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work  # type: ignore[misc]
    return caught.value


async def shares(client: SupervisorClient, **options: object) -> dict[str, ResourceEstimate]:
    request = FanOutRequest.model_validate({"count": 1, **options})
    return {row.name: row for row in (await client.fan_out_estimate("source", request)).resources}


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_the_shares_are_what_forks_take(home: Home) -> None:
    forks = 6
    async with supervisor(home) as running:
        client = running.client
        await walking_source(client)
        await client.standby("source")
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


async def test_a_fan_out_that_does_not_fit_is_refused_with_numbers_and_can_be_forced(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", "hot_mib=4")
        await client.standby("source")
        # A real limit on the real process: room for ten forks, and for the requests of this test.
        limit = open_files(running.process.pid) + 40
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, 20000))
        found = await client.fan_out_estimate("source", FanOutRequest(count=50))
        assert found.limiting == "descriptors"
        assert 8 <= found.fits <= 10
        error = await refused(client.fan_out("source", FanOutRequest(count=50)))
        assert (error.status, error.code) == (409, "insufficient_resources")
        assert "the host has descriptors for " in error.message
        assert "force=true" in error.message
        assert [detail.code for detail in error.details] == ["descriptors"]
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
        source = await walking_source(client)
        await client.standby(source.id)
        file = embedded.data / "instances" / source.id / "vm.json"
        drive = {"drive_id": "data", "path_on_host": "gone.img", "is_root_device": False, "is_read_only": False}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"drives": [drive]}))
        error = await refused(client.fan_out_estimate(source.id, FanOutRequest(count=1)))
        assert (error.status, error.code) == (404, "not_found")
        assert "gone.img is gone" in error.message
        await client.delete(source.id)


async def test_a_second_fan_out_is_estimated_beside_what_the_first_has(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", "hot_mib=4")
        await client.standby("source")
        # For nine with what the API opens meanwhile, and not for six more beside those.
        limit = open_files(running.process.pid) + 48
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
        await walking_source(client, "source", "hot_mib=4")
        await client.standby("source")
        limit = open_files(running.process.pid) + 48
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
