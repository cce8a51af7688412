"""Pages that a guest gives back through its balloon are zeros afterwards, never the mem-file's: real remove events."""

import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from forktui.client.api import SupervisorClient
from supervisor.guests.boot import boot_args
from supervisor.models import CheckpointRequest, CreateRequest, ForkRequest, Instance
from supervisor.runtime.attaching import listener_for
from supervisor.uffd.handle import PageServer, Policy
from supervisor.uffd.page_map import PageMapReader
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.quarters import InDirectory
from tests.harness.jails import api_socket
from tests.harness.pagewalker_images import write_image
from tests.harness.plain_outputs import PLAIN
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.unix_http import request
from tests.harness.waiting import until_console_says

MIB = 1 << 20
MEMORY_MIB = 96
BALLAST_MIB = 8
PAGES = BALLAST_MIB * MIB // 4096


def set_balloon(api: Path, amount_mib: int) -> None:
    """Ask a VMM for what the driver has no method for."""
    assert request(api, "PATCH", "/balloon", {"amount_mib": amount_mib}) == (204, None)


@dataclass
class Fork:
    """A fork with a balloon, served by a real page server."""

    vmm: Vmm
    server: PageServer
    api: Path
    directory: Path
    page_map: Path

    async def says(self, line: str) -> None:
        await until_console_says(self.directory / "console.log", line)

    async def counters(self) -> tuple[int, int, int]:
        """Removed pages, zero pages and faults, once the page server has written them."""
        await self.server.status()
        with PageMapReader(self.page_map) as reader:
            counters = reader.counters()
        return counters.removed_pages, counters.zero_pages, counters.faults


def write_ballooned(directory: Path) -> None:
    """Make a directory with an endlessly walking pagewalker that has ballast, and a balloon that takes nothing yet."""
    sections = {
        "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB},
        "balloon": {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 0},
        "drives": [],
    }
    write_image(directory, sections, boot_args(hot_mib=4, passes=0, ballast_mib=BALLAST_MIB))


async def page_server(run_dir: Path) -> PageServer:
    with (run_dir / "page_server.log").open("ab") as log:
        return await PageServer.spawn(
            template_id="template",
            layers=[run_dir / "source" / "mem"],
            memory_size=MEMORY_MIB * MIB,
            page_size=4096,
            hot_pages=run_dir / "hot_pages",
            control=run_dir / "control",
            stderr=log.fileno(),
            policy=Policy(),
            on_event=lambda event: None,
        )


@contextlib.asynccontextmanager
async def fork_with_balloon(hypervisor: Hypervisor, run_dir: Path) -> AsyncIterator[Fork]:
    source, directory = run_dir / "source", run_dir / "fork"
    directory.mkdir()
    write_ballooned(source)
    booted = await Vmm.spawn(
        hypervisor,
        instance_id="source",
        quarters=InDirectory(source, run_dir / "s.sock"),
        config_file="vm.json",
        consoles=PLAIN,
    )
    try:
        await until_console_says(source / "console.log", "pass 1")
        await booted.api.pause()
        await booted.api.create_snapshot("state", "mem")
    finally:
        await booted.terminate()
    for name in ("state", "mem"):
        os.link(source / name, directory / name)
    server = await page_server(run_dir)
    try:
        vmm = await Vmm.spawn(
            hypervisor,
            instance_id="fork",
            quarters=InDirectory(directory, run_dir / "f.sock"),
            config_file=None,
            consoles=PLAIN,
        )
        try:
            page_map = run_dir / "fork.map"
            with listener_for(run_dir / "f.uffd") as listener:
                await server.attach(
                    "fork", listener=listener, page_map=page_map, vmm_pid=vmm.pid, prefetch="off", record=False
                )
            await vmm.api.load_snapshot("state", "Uffd", str(run_dir / "f.uffd"), resume=True)
            await server.served("fork")
            yield Fork(vmm, server, run_dir / "f.sock", directory, page_map)
        finally:
            await vmm.terminate()
    finally:
        await server.stop()


async def test_pages_given_to_the_balloon_read_as_zeros_when_it_gives_them_back(
    hypervisor: Hypervisor, run_dir: Path
) -> None:
    async with fork_with_balloon(hypervisor, run_dir) as fork:
        await fork.says("pass 1")
        set_balloon(fork.api, BALLAST_MIB)
        await fork.says(f"balloon {PAGES}")
        removed, _, before = await fork.counters()
        assert removed == PAGES
        set_balloon(fork.api, 0)
        await fork.says("balloon 0")
        # The guest itself verifies that they are zeros: each of these passes begins after they came back.
        seen = console(fork)
        await fork.says(f"pass {last_pass(seen) + 2}")
        assert "CORRUPT" not in console(fork)
        _, zeros, after = await fork.counters()
        assert zeros >= PAGES
        assert after > before


async def test_pages_given_away_before_they_were_ever_touched_are_zeros_too(
    hypervisor: Hypervisor, run_dir: Path
) -> None:
    async with fork_with_balloon(hypervisor, run_dir) as fork:
        set_balloon(fork.api, BALLAST_MIB)
        await fork.says(f"balloon {PAGES}")
        set_balloon(fork.api, 0)
        await fork.says("balloon 0")
        await fork.says(f"pass {last_pass(console(fork)) + 2}")
        assert "CORRUPT" not in console(fork)


async def test_a_removal_outlives_the_page_server_that_was_told_of_it(hypervisor: Hypervisor, run_dir: Path) -> None:
    async with fork_with_balloon(hypervisor, run_dir) as fork:
        await fork.says("pass 1")
        set_balloon(fork.api, BALLAST_MIB)
        await fork.says(f"balloon {PAGES}")
        fork.server.kill()
        await fork.server.exited
        other = await page_server(run_dir)
        try:
            await other.adopt("fork", page_map=fork.page_map, vmm_pid=fork.vmm.pid)
            set_balloon(fork.api, 0)
            await fork.says("balloon 0")
            await fork.says(f"pass {last_pass(console(fork)) + 2}")
            assert "CORRUPT" not in console(fork)
        finally:
            await other.stop()


async def inflate(home: Home, instance: Instance, amount_mib: int) -> None:
    """Have a VM of a supervisor give memory to its balloon, or take it back, and wait until its guest has."""
    set_balloon(api_socket(home, instance.id), amount_mib)
    await until_console_says(console_of(home, instance), f"balloon {amount_mib * MIB // 4096}")


def console_of(home: Home, instance: Instance) -> Path:
    return home.data / "instances" / instance.id / "console.log"


async def gets_zeros_back(home: Home, client: SupervisorClient, instance: Instance, **options: object) -> None:
    """See that a fork, whose source has given memory to its balloon, finds zeros where it takes that back."""
    fork = await client.fork(instance.id, ForkRequest(target_state="Running", **options))
    await until_console_says(console_of(home, fork), "restored")
    await inflate(home, fork, 0)
    passes = last_pass(console_of(home, fork).read_text())
    await until_console_says(console_of(home, fork), f"pass {passes + 2}")
    assert "CORRUPT" not in console_of(home, fork).read_text()
    await client.delete(fork.id)


async def test_a_chain_of_snapshots_knows_what_the_balloon_took(firecracker_home: Home) -> None:
    """Of a VM with a balloon the first snapshot is a diff layer, of what it ever touched, and the later ones whole."""
    write_ballooned(firecracker_home.data / "images" / "ballooned")
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="ballooned"))
        await until_console_says(console_of(firecracker_home, source), "pass 1")
        first = await client.checkpoint("source", CheckpointRequest(name="first"))
        (layer,) = (firecracker_home.data / "instances" / first.id).glob("mem.*")
        assert layer.stat().st_blocks * 512 < layer.stat().st_size / 2, "a diff layer"

        await inflate(firecracker_home, source, BALLAST_MIB)
        second = await client.checkpoint("source", CheckpointRequest(name="second"))
        assert second.layers == 1
        await gets_zeros_back(firecracker_home, client, second, share_memory=True)
        await gets_zeros_back(firecracker_home, client, second)

        fork = await client.fork("first", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        await until_console_says(console_of(firecracker_home, fork), "restored")
        await inflate(firecracker_home, fork, BALLAST_MIB)
        fork = await client.standby("fork")
        assert fork.layers == 1
        await gets_zeros_back(firecracker_home, client, fork, share_memory=True, memory_backend="file")
        for name in ("fork", "first", "second", "source"):
            await client.delete(name)


def console(fork: Fork) -> str:
    return (fork.directory / "console.log").read_text()


def last_pass(text: str) -> int:
    return max((int(line.split()[1]) for line in text.splitlines() if line.startswith("pass ")), default=0)
