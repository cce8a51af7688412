"""Layers over the socket, on both hypervisors: small to write, whole to read."""

import os
import signal

from supervisor.models import CreateRequest, ForkRequest
from supervisor.system.sparse_files import allocated
from tests.harness.layers_on_disk import SHARED, chain, checkpoint
from tests.harness.supervisor_process import Home, supervisor, until, until_walking, walking_source
from tests.harness.verified_guests import standby_source, until_verified, verified

MIB = 1 << 20
SCRATCH_BYTES = 16 * 4096
"""What a pass of pagewalker writes."""
COPY = ForkRequest(target_state="Running")


async def test_a_fork_in_standby_is_a_small_layer_and_its_own_image_from_then_on(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client)
        (base,) = chain(home, source)
        assert allocated(base.stat()) < 32 * MIB < base.stat().st_size

        await client.fork(source.id, SHARED.model_copy(update={"name": "fork"}))
        await until_verified(client, "fork")
        fork = await client.standby("fork")
        newest, oldest = chain(home, fork)
        assert allocated(newest.stat()) < MIB
        assert oldest.samefile(base)

        fork = await client.restore("fork")
        assert fork.phases[0].name == "flatten"
        (flat,) = chain(home, fork)
        await until_verified(client, "fork")
        fork = await client.standby("fork")
        newest, oldest = chain(home, fork)
        assert (oldest, allocated(newest.stat()) < MIB) == (flat, True)

        await client.fork("fork", SHARED.model_copy(update={"name": "grandchild"}))
        await client.fork("fork", COPY.model_copy(update={"name": "copy"}))
        await until_verified(client, "grandchild", "copy")
        for name in ("grandchild", "copy", "fork", "source"):
            await client.delete(name)


async def test_a_tree_three_levels_deep_is_verified_at_every_level(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        level = await walking_source(client)
        level = await client.standby(level.id)
        names = [level.name]
        for depth in (1, 2, 3):
            name = f"level-{depth}"
            await client.fork(level.id, SHARED.model_copy(update={"name": name}))
            await until_verified(client, name)
            level = await client.standby(name)
            assert len(chain(home, level)) == level.layers == depth + 1
            names.append(name)
        await client.fork(level.id, SHARED.model_copy(update={"name": "leaf"}))
        await until_verified(client, "leaf")
        for name in reversed((*names, "leaf")):
            await client.delete(name)


async def test_chains_are_made_shorter_while_forks_read_the_old_ones(home: Home) -> None:
    home.options = ("--max-layers", "2")
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client, "source", "passes=0")
        await checkpoint(client, source, "one")
        second = await checkpoint(client, source, "two")
        old = chain(home, second)
        assert len(old) == 2
        for name in ("early", "flat"):
            backend = {"memory_backend": "uffd" if name == "early" else "file"}
            await client.fork(second.id, SHARED.model_copy(update={"name": name, "prefetch": "off", **backend}))
        (flattened,) = chain(home, second)
        assert flattened.name not in [layer.name for layer in old]
        for name in ("three", "four", "five"):
            made = await checkpoint(client, source, name)
            assert len(chain(home, made)) <= 2
            assert len(chain(home, source)) <= 2

        host = await until(lambda host: verified(host, "early", "flat"), client)
        (template,) = host.templates
        assert (template.layers, template.page_server_pid is not None) == (2, True)
        assert template.page_server_pid is not None
        os.kill(template.page_server_pid, signal.SIGKILL)
        await until(lambda host: bool(host.templates[0].page_server_restarts), client)
        await client.fork(second.id, SHARED.model_copy(update={"name": "late", "prefetch": "off"}))
        await client.fork("five", SHARED.model_copy(update={"name": "newest"}))
        await until_verified(client, "early", "flat", "late", "newest")
        for name in ("early", "flat", "late", "newest", "two", "one", "three", "four", "five", "source"):
            await client.delete(name)


async def test_a_vm_without_dirty_tracking_writes_whole_snapshots(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(
            CreateRequest(name="source", image="pagewalker", cmd=("passes=0",), track_dirty_pages=False)
        )
        await until_walking(client, "source")
        source = await client.instance("source")
        assert not source.track_dirty_pages
        for name in ("one", "two"):
            made = await checkpoint(client, source, name)
            assert (made.layers, made.track_dirty_pages) == (1, False)
        await client.fork("two", SHARED.model_copy(update={"name": "fork"}))
        await until_verified(client, "fork")
        assert (await client.standby("fork")).layers == 1
        for name in ("fork", "one", "two", "source"):
            await client.delete(name)
