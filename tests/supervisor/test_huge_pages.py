"""VMs of huge pages through the supervisor, with a real Firecracker: forked, prefetched, and refused in time."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.errors import InsufficientResourcesError
from supervisor.guests.boot import kernel_path
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, HostSnapshot
from supervisor.runtime.huge_page_pool import HugePagePool
from supervisor.uffd import huge_pages
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, free_pages
from tests.harness.huge_page_pool import free_in_pool
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, sample, supervisor, until
from tests.harness.waiting import until_console_says

MEMORY_MIB = 64
PAGES = MEMORY_MIB * (1 << 20) // HUGE_PAGE_BYTES


@pytest.fixture
def huge_home(firecracker_home: Home) -> Iterator[Home]:
    """A supervisor's directories with the image `huge`: pagewalker in huge pages, of which three VMs may have all."""
    image = firecracker_home.data / "images" / "huge"
    image.mkdir(parents=True)
    (image / "kernel").write_bytes(kernel_path().read_bytes())
    config = {
        "boot-source": {"kernel_image_path": "kernel", "boot_args": "hot_mib=8 passes=0"},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB, "huge_pages": "2M"},
    }
    (image / "vm.json").write_text(json.dumps(config))
    with free_in_pool(3 * PAGES):
        yield firecracker_home
        # The pool is made small again, of which VMs hold a part.
        firecracker_home.kill_everything()


async def walking(client: SupervisorClient, home: Home, name: str) -> None:
    """Return when a guest has verified a pass since it was restored; fails on a wrong byte."""
    console = home.data / "instances" / (await client.instance(name)).id / "console.log"
    await until_console_says(console, "pass 2")
    assert "CORRUPT" not in console.read_text()


async def standby_source(client: SupervisorClient, home: Home, *, track_dirty_pages: bool = True) -> None:
    await client.create(CreateRequest(name="source", image="huge", track_dirty_pages=track_dirty_pages))
    await walking(client, home, "source")
    await client.standby("source")


def shared(name: str, **options: object) -> ForkRequest:
    return ForkRequest.model_validate({"name": name, "share_memory": True, "target_state": "Running", **options})


async def test_forks_are_served_and_prefetched_in_huge_pages(huge_home: Home) -> None:
    async with supervisor(huge_home) as running:
        client = running.client
        await standby_source(client, huge_home)
        await client.fork("source", shared("first"))
        await walking(client, huge_home, "first")

        def recorded(host: HostSnapshot) -> bool:
            return any(one.recorded_pages and not one.recording_fork for one in host.templates)

        (template,) = (await until(recorded, client)).templates
        assert template.page_size == HUGE_PAGE_BYTES
        # 8 MiB of hot set, and the guest's own few pages below it.
        assert 4 < template.recorded_pages <= PAGES
        await client.fork("source", shared("second"))
        await walking(client, huge_home, "second")
        statistics = sample(await until(lambda host: sample(host, "second").prefetched_pages > 0, client), "second")
        assert statistics.total_pages == PAGES
        assert statistics.prefetched_pages == template.recorded_pages
        assert statistics.prefetch_bytes % HUGE_PAGE_BYTES == 0
        assert statistics.residual_faults == 0
        await client.delete("source", cascade=True)
    assert free_pages() == 3 * PAGES
    assert huge_home.processes() == []


@pytest.mark.parametrize("track_dirty_pages", [True, False])
async def test_what_a_fork_wrote_its_own_forks_get_in_huge_pages(huge_home: Home, track_dirty_pages: bool) -> None:
    async with supervisor(huge_home) as running:
        client = running.client
        await standby_source(client, huge_home, track_dirty_pages=track_dirty_pages)
        await client.fork("source", shared("middle"))
        await walking(client, huge_home, "middle")
        await client.checkpoint("middle", CheckpointRequest(name="checkpoint"))
        checkpoint = await client.instance("checkpoint")
        assert checkpoint.layers == (2 if track_dirty_pages else 1)
        layer = max(
            (huge_home.data / "instances" / checkpoint.id).glob("mem.*"), key=lambda path: path.stat().st_mtime_ns
        )
        # The dirty log has 4 KiB pages under huge ones as well.
        assert (layer.stat().st_blocks * 512 < HUGE_PAGE_BYTES) is track_dirty_pages
        await client.fork("checkpoint", shared("leaf"))
        await walking(client, huge_home, "leaf")
        await client.standby("middle")
        await client.fork("middle", shared("other-leaf"))
        await walking(client, huge_home, "other-leaf")
        for name in ("leaf", "other-leaf", "checkpoint", "middle", "source"):
            await client.delete(name)


async def test_memory_of_huge_pages_comes_from_a_page_server_or_not_at_all(huge_home: Home) -> None:
    async with supervisor(huge_home) as running:
        client = running.client
        await standby_source(client, huge_home)
        for options in ({"memory_backend": "file"}, {"share_memory": False}):
            error = await refused(client.fork("source", shared("fork", **options)))
            assert (error.status, error.code) == (409, "invalid_state")
            assert "share_memory=true and memory_backend=uffd" in error.message
        error = await refused(client.restore("source"))
        assert "source: restore refused: its memory is of huge pages" in error.message
        assert [one.name for one in await client.instances()] == ["source"]
        await client.fork("source", shared("fork", share_memory=False, target_state="Standby"))
        for name in ("fork", "source"):
            await client.delete(name)


async def test_vms_that_the_pool_has_no_pages_for_are_refused_before_they_start(huge_home: Home) -> None:
    async with supervisor(huge_home) as running:
        client = running.client
        await standby_source(client, huge_home)
        error = await refused(client.fan_out("source", FanOutRequest(count=5)))
        assert (error.status, error.code) == (409, "insufficient_resources")
        assert [detail.code for detail in error.details] == ["huge_pages", "insufficient_resources"]
        assert f"{3 * PAGES} can be had: {2 * PAGES} missing; ask for at most 3" in error.message
        result = await client.fan_out("source", FanOutRequest(count=4, record="off", force=True))
        made = [child.name for child in result.children if child.error is None]
        (failed,) = [child.error for child in result.children if child.error is not None]
        assert (len(made), failed.code) == (3, "insufficient_resources")
        # Most of them are free, and promised to the three that have not touched them yet.
        assert free_pages() > PAGES
        missing = f"it needs {PAGES} huge pages of 2 MiB, and the pool has 0 .*: {PAGES} are missing"
        with pytest.raises(ApiError, match=f"fork: refused: {missing}"):
            await client.fork("source", shared("fork"))
        with pytest.raises(ApiError, match=f"other: refused: {missing}"):
            await client.create(CreateRequest(name="other", image="huge"))
        await running.end()
    # Whoever adopts the three knows what they were promised.
    async with supervisor(huge_home) as running:
        client = running.client
        with pytest.raises(ApiError, match=f"fork: refused: {missing}"):
            await client.fork("source", shared("fork"))
        await client.delete(made[0])
        await client.fork("source", shared("fork"))
        await walking(client, huge_home, "fork")
        await client.delete("source", cascade=True)
    assert free_pages() == 3 * PAGES


async def test_a_share_ends_with_its_vm_and_is_what_the_pool_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huge_pages, "POOL", tmp_path)
    numbers = {"free_hugepages": 10, "resv_hugepages": 0, "nr_overcommit_hugepages": 0, "surplus_hugepages": 0}
    for name, number in numbers.items():
        (tmp_path / name).write_text(f"{number}\n")
    pool = HugePagePool()
    first = await pool.promise("first", 6)
    with pytest.raises(
        InsufficientResourcesError, match=r"second: refused: it needs 6 .* the pool has 4 .* 2 are missi"
    ):
        await pool.promise("second", 6)
    await pool.promise("small", 0)
    assert await pool.left(4) == 4
    pool.claim(7, 1 << 22)
    assert await pool.left(4) == -3
    pool.end(first)
    assert await pool.left(4) == 3
