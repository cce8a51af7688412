"""Layers of a template that are truncated, written, replaced or removed: told before a fork starts on them."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.errors import LayerError
from supervisor.guests.pagewalker import HOT_BASE
from supervisor.models import ForkRequest
from supervisor.snapshots.layer_checks import check_layers, take_marks
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, guest, supervisor, until
from tests.harness.verified_guests import standby_source


def truncate(layer: Path) -> None:
    os.truncate(layer, layer.stat().st_size - 4096)


def write(layer: Path) -> None:
    """Change one byte that a guest verifies."""
    layer.chmod(0o600)
    with layer.open("r+b") as file:
        file.seek(HOT_BASE)
        file.write(b"\xff")


def replace(layer: Path) -> None:
    other = layer.with_name("other")
    other.write_bytes(layer.read_bytes())
    other.rename(layer)


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # What is done, what a page server that runs says, and what is said where none does.
    "truncated": (truncate, "was truncated to", "was truncated from"),
    "written": (write, "was written under its page server", "was written since it was noted"),
    "replaced": (replace, "was replaced by another file", "was written since it was noted"),
    "missing": (Path.unlink, "is missing: No such file", "is missing: No such file"),
}


class Original:
    """A layer as it was, to be put back."""

    def __init__(self, layer: Path) -> None:
        self._layer = layer
        self._kept = layer.with_name("kept")
        os.link(layer, self._kept)
        self._data, self._status = layer.read_bytes(), layer.stat()

    def put_back(self) -> None:
        self._layer.unlink(missing_ok=True)
        self._kept.chmod(0o600)
        self._kept.write_bytes(self._data)
        os.utime(self._kept, ns=(self._status.st_atime_ns, self._status.st_mtime_ns))
        os.link(self._kept, self._layer)


async def refused_fork(client: SupervisorClient) -> str:
    """Return why a fork is refused, of which nothing may be left."""
    before = [one.name for one in await client.instances()]
    request = ForkRequest(name="late", share_memory=True, target_state="Running")
    error = await refused(client.fork("source", request))
    assert error.code in ("page_server_failed", "layer_changed")
    assert [one.name for one in await client.instances()] == before
    return error.message


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_layer_is_known_by_its_size_and_mtime_where_no_page_server_has_it_open(kind: str, tmp_path: Path) -> None:
    layer = tmp_path / "mem.0"
    layer.write_bytes(bytes(HOT_BASE + 4096))
    os.utime(layer, ns=(1, 1))
    marked = take_marks("vm", [layer])
    linked = tmp_path / "linked"
    os.link(layer, linked)
    check_layers("vm", [linked], marked)
    check_layers("vm", [linked], ())
    damage, _, reason = DAMAGE[kind]
    damage(layer)
    with pytest.raises(LayerError, match=rf"^vm: layer {layer} {reason}"):
        check_layers("vm", [layer], marked)


async def test_a_layer_that_is_not_what_it_was_is_told_before_a_fork_starts(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client, "source", "passes=0", "hot_mib=2")
        await client.fork("source", ForkRequest(name="warm", share_memory=True, target_state="Running"))
        await until(lambda host: guest(host, "warm").passes > 0, client)
        (layer,) = (home.data / "templates").glob("*/mem.*")
        original = Original(layer)
        for damage, while_served, _ in DAMAGE.values():
            damage(layer)
            message = await refused_fork(client)
            assert str(layer) in message
            assert while_served in message
            original.put_back()
        write(layer)
        server = (await client.snapshot()).templates[0].page_server_pid
        assert server is not None
        psutil.Process(server).kill()
        await until(lambda host: host.templates[0].page_server_pid is None, client)
        message = await refused_fork(client)
        assert f"source: layer {layer} was written since it was noted: noted are " in message
        assert "put it back as it was, or POST /instances/source/accept" in message
        original.put_back()
        await until(lambda host: host.templates[0].page_server_pid is not None, client)
        await client.fork("source", ForkRequest(name="late", share_memory=True, target_state="Running"))
        host = await until(lambda host: guest(host, "late").passes > 0, client)
        assert guest(host, "late").corrupt is guest(host, "warm").corrupt is None
        await client.delete("source", cascade=True)
