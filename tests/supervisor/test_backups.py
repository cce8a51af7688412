"""A data directory that was put back from a backup: what is the same memory goes on, and what is not is refused."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.guests.pagewalker import HOT_BASE
from supervisor.models import AcceptRequest, ForkRequest, Instance, State, Template
from supervisor.system.sparse_files import opened
from supervisor.uffd.memory_image import data_extents
from tests.harness.copies import KEEPS_TIMES
from tests.harness.layers_on_disk import record
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, gathered, supervisor, until
from tests.harness.verified_guests import standby_source, until_verified

UFFD = ForkRequest(share_memory=True, target_state="Running")
FILE = UFFD.model_copy(update={"memory_backend": "file"})
COPY = ForkRequest(target_state="Running")
REST = ForkRequest(target_state="Standby")
"""How a memory image is used: through a page server, by one file for all forks, by a file of its own; or not yet."""
GUEST = ("passes=0", "hot_mib=1")
BACKUPS = ("tar", "tar sparse", "cp sparse always")
"""One that fills all holes and cuts times off, one that keeps the holes, and one that makes more; others are tried on
layers alone."""


def named(request: ForkRequest, name: str) -> ForkRequest:
    return request.model_copy(update={"name": name})


def layers(home: Home, one: Instance) -> list[Path]:
    """Return the layers of an instance, newest first."""
    snapshot = record(home, one).snapshot
    return [home.data / "instances" / one.id / name for name in snapshot.layers] if snapshot else []


def holes(path: Path) -> list[tuple[int, int]]:
    with opened(path) as fd:
        return list(data_extents(fd, path.stat().st_size))


async def template_of(client: SupervisorClient, one: Instance) -> Template:
    host = await until(lambda host: any(each.instance_id == one.id for each in host.templates), client)
    return next(each for each in host.templates if each.instance_id == one.id)


async def refusals(client: SupervisorClient, name: str) -> list[ApiError]:
    """Return why the memory of an instance, and of `rests`, which is a copy of it, is used in no way."""
    outcomes = await gathered(
        *(client.fork(name, named(request, f"late-{number}")) for number, request in enumerate((UFFD, FILE, COPY))),
        client.restore("rests"),
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
    assert len(errors) == len(outcomes), outcomes
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKUPS)
async def test_a_backup_is_forked_and_restored_or_refused_for_a_layer_that_lost_its_holes(
    embedded: Home, kind: str
) -> None:
    """As it is made while no supervisor runs, but VMs and page servers do."""
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client, "source", *GUEST)
        await client.fork("source", named(UFFD, "runs"))
        await until(lambda host: any(each.recorded_pages for each in host.templates), client)
        await client.fork("source", named(REST, "rests"))
        await standby_source(client, "chain", *GUEST)
        await client.restore("chain")
        await until_verified(client, "chain")
        chain = await client.standby("chain")
        recorded = (await template_of(client, source)).recorded_pages
    newest, _ = layers(embedded, chain)
    root = embedded.root / "restored"
    root.mkdir()
    KEEPS_TIMES[kind](embedded.data, root / "data")
    kept_holes = holes(newest) == holes(root / newest.relative_to(embedded.root))
    embedded.kill_everything()
    async with supervisor(dataclasses.replace(embedded, root=root)) as running:
        client = running.client
        assert (await client.instance("runs")).state is State.STOPPED
        for name, request in (("uffd", UFFD), ("file", FILE), ("copy", COPY)):
            await client.fork("source", named(request, name))
        await client.restore("rests")
        await until_verified(client, "uffd", "file", "copy", "rests")
        assert (await template_of(client, source)).recorded_pages == recorded
        if kept_holes:
            await client.fork("chain", named(UFFD, "of-chain"))
            await until_verified(client, "of-chain")
        else:
            for request in (UFFD, FILE, COPY):
                error = await refused(client.fork("chain", named(request, "of-chain")))
                assert (error.code, error.status) == ("layer_changed", 409)
                assert "does not have its holes where they were" in error.message
                assert "noted are " in error.message
                assert "pages of data" in error.message
            error = await refused(client.accept("chain"))
            assert (error.code, "another one than what was noted" in error.message) == ("invalid_state", True)


async def test_a_memory_whose_time_was_lost_is_refused_alike_until_it_is_accepted(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", *GUEST)
        await client.fork("source", named(UFFD, "first"))
        await client.fork("source", named(REST, "rests"))
        await client.delete("first")
        template = await template_of(client, source)
        (layer,) = layers(home, source)
        kept = layer.stat()
        os.utime(layer)
        # Its page server has it open, and is to be no way round.
        for error in await refusals(client, "source"):
            assert str(home.data) in error.message
            assert "was written" in error.message
        await client.accept("source")
        assert (await template_of(client, source)).page_server_pid is None, "it has the former files open, and is ended"
        await client.accept("rests")
        await client.fork("source", named(UFFD, "second"))
        await client.restore("rests")
        await until_verified(client, "second", "rests")
        # What is read is noted: a time that is lost again proves nothing against it, though a fork runs.
        os.utime(layer)
        await client.accept("source")
        change_a_byte(layer)
        refusal = await refused(client.accept("source", AcceptRequest(changed=True)))
        assert "forks of it run (second)" in refusal.message
        await client.delete("second")
        refusal = await refused(client.accept("source"))
        assert (refusal.code, "or give changed=true" in refusal.message) == ("invalid_state", True)
        list_of_hot_pages = home.data / "templates" / template.id / "hot_pages"
        list_of_hot_pages.touch()
        await client.accept("source", AcceptRequest(changed=True))
        assert not list_of_hot_pages.exists()
        assert (await template_of(client, source)).recorded_pages == 0
        assert kept.st_mtime_ns != layer.stat().st_mtime_ns
        await client.fork("source", named(UFFD, "third"))
        await client.delete("source", cascade=True)
        assert await client.instances() == []


def change_a_byte(layer: Path) -> None:
    """Write to a layer so that its size and its time are as they were."""
    status = layer.stat()
    layer.chmod(0o600)
    with layer.open("r+b") as file:
        file.seek(HOT_BASE)
        file.write(b"\xff")
    os.utime(layer, ns=(status.st_atime_ns, status.st_mtime_ns))


async def test_what_is_not_whole_is_accepted_by_no_means(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client, "source", *GUEST)
        await standby_source(client, "other", *GUEST)
        (layer,) = layers(embedded, source)
        state = layer.with_name("state.0")
        spoil: dict[str, Callable[[], object]] = {
            "has 4096 bytes, and its memory": partial(os.truncate, layer, 4096),
            "is missing: No such file": layer.unlink,
            "its state.0 cannot be used": partial(os.truncate, state, 10),
        }
        for reason, damage in spoil.items():
            damage()
            error = await refused(client.accept("source", AcceptRequest(changed=True)))
            assert (error.code, reason in error.message) == ("layer_changed", True), error.message
            assert error.message.endswith("put it back")
        await client.restore("other")
        error = await refused(client.accept("other"))
        assert (error.code, "it is Running, and must be Standby" in error.message) == ("invalid_state", True)
