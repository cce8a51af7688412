"""VMs with two memory slots: chains of diff layers in which one is dirty and the other clean, verified by forks."""

from pathlib import Path
from typing import Final

from forktui.client.api import SupervisorClient
from supervisor.guests.pagewalker import GAP_BASE, MIB, OLD_GAP_BASE, PAGE_SIZE
from supervisor.models import CreateRequest, ForkRequest, HostSnapshot, Instance
from tests.harness.layers_on_disk import SHARED, chain, checkpoint
from tests.harness.pagewalker_guest import extents
from tests.harness.supervisor_process import Home, guest, sample, supervisor, until
from tests.harness.verified_guests import until_verified

UPPER_MIB: Final = 2
PAGES: Final = MIB // PAGE_SIZE
SIZE: Final = f"{OLD_GAP_BASE // MIB + UPPER_MIB}MB"
WORDS: Final = ("hot_mib=2", "passes=1", f"upper_mib={UPPER_MIB}")
"""Each life of such a guest is one walk; every second one writes to the upper set, which is in the second slot."""
BOTH: Final = (True, True)
LOWER: Final = (True, False)
FORKS: Final = {
    "prefetched": SHARED,
    "concurrent": SHARED.model_copy(update={"prefetch": "concurrent"}),
    "file": SHARED.model_copy(update={"memory_backend": "file"}),
}


async def until_done(client: SupervisorClient, name: str) -> None:
    """Return when the guest has walked and idles."""

    def done(host: HostSnapshot) -> bool:
        assert guest(host, name).corrupt is None
        return guest(host, name).done

    await until(done, client)


async def life(client: SupervisorClient, source: str, name: str) -> Instance:
    """Fork an instance, let the fork live to its end, and put it to standby."""
    await fork(client, source, name, SHARED)
    await until_done(client, name)
    return await client.standby(name)


async def fork(client: SupervisorClient, source: str, name: str, request: ForkRequest) -> Instance:
    return await client.fork(source, request.model_copy(update={"name": name}))


async def records(client: SupervisorClient, origin: str) -> None:
    """Fork an instance, and return when the fork has verified its memory and recorded which pages it touched."""
    recorder = await fork(client, origin, f"{origin}-recorder", SHARED)
    await until_verified(client, recorder.name)
    await until(
        lambda host: any(one.id == recorder.template_id and one.recorded_pages for one in host.templates), client
    )


def dirty_slots(layers: list[Path]) -> list[tuple[bool, bool]]:
    """Return of each layer whether it has pages of the first slot, and of the second."""
    found = [extents(layer) for layer in layers]
    assert all(end < GAP_BASE // 2 or start >= GAP_BASE for one in found for start, end in one), "the first ends clean"
    return [(any(at < GAP_BASE for at, _ in one), any(at >= GAP_BASE for at, _ in one)) for one in found]


async def test_diff_layers_of_either_slot_are_verified_by_forks_on_both_backends(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(CreateRequest(name="source", image="pagewalker", size=SIZE, cmd=WORDS))
        await until_done(client, "source")
        source = await client.standby("source")
        assert dirty_slots(chain(home, source)) == [BOTH]
        writes = await life(client, "source", "writes")
        assert dirty_slots(chain(home, writes)) == [BOTH, BOTH]
        reads = await life(client, "writes", "reads")
        assert dirty_slots(chain(home, reads)) == [LOWER, BOTH, BOTH]

        last = await fork(client, "reads", "last", SHARED)
        await until_done(client, "last")
        copy = await checkpoint(client, last, "copy")
        assert dirty_slots(chain(home, copy)) == [BOTH, LOWER, BOTH, BOTH]
        for origin in ("copy", "writes"):
            await records(client, origin)
            for kind, request in FORKS.items():
                await fork(client, origin, f"{origin}-{kind}", request)
            host = await until_verified(client, *(f"{origin}-{kind}" for kind in FORKS))
            assert sample(host, f"{origin}-prefetched").prefetched_pages > UPPER_MIB * PAGES, "of both slots"
        assert dirty_slots(chain(home, copy)) == [BOTH], "merged for the file backend"
        await client.delete("source", cascade=True)
