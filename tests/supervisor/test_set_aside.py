"""Records that a supervisor finds and does not believe: shown, and nothing is done by them."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from supervisor.models import AcceptRequest, CreateRequest, ForkRequest, Instance, State
from supervisor.store.layout import Layout
from supervisor.store.record_files import LARGEST_RECORD
from supervisor.store.registry import Registry
from tests.harness.record_sets import Fields, family, write
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, find, supervisor
from tests.harness.verified_guests import one_more_pass, standby_source

SHARED = ForkRequest(share_memory=True, target_state="Running")
NOBODY = 65534


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked_directory(path: Path) -> None:
    path.parent.rename(path.parent.parent / ".elsewhere")
    path.parent.symlink_to(path.parent.parent / ".elsewhere")


def gigabyte(path: Path) -> None:
    os.truncate(path, 1 << 30)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


NOT_READ: dict[str, tuple[Callable[[Path], object], str]] = {
    "fifo": (fifo, "it is a FIFO, and no file"),
    "symlink": (link, "it is a symbolic link, and no file"),
    "device": (endless, "it is a symbolic link"),
    "directory": (directory, "it is a directory, and no file"),
    "linked directory": (linked_directory, "its directory is a symbolic link"),
    "huge": (gigabyte, f"it has more than {LARGEST_RECORD} bytes"),
    "deep": (lambda path: path.write_text("[" * 500_000), "it is not JSON: recursion limit exceeded"),
    "deep field": (lambda path: path.write_text('{"id":' * 100_000), "it is not JSON: recursion limit exceeded"),
    "not UTF-8": (lambda path: path.write_bytes(b'{"id": "\xff"}'), "it is not JSON: invalid unicode"),
    "surrogate": (lambda path: path.write_bytes(b'{"id": "\\ud800"}'), "it is not JSON"),
    "digits": (lambda path: path.write_text('{"vcpus": ' + "9" * 90_000 + "}"), ""),
    "no object": (lambda path: path.write_text("[]"), "it is not a JSON object"),
    "missing": (Path.unlink, "No such file or directory"),
}


@pytest.mark.parametrize("kind", NOT_READ)
@pytest.mark.parametrize("file", ["instance.json", "template.json"])
def test_a_record_that_is_no_record_is_set_aside_and_left_as_it_is(tmp_path: Path, kind: str, file: str) -> None:
    registry = Registry(Layout(tmp_path / "data", tmp_path))
    instances, templates = family("a", 100)
    ids = [fields["id"] for fields in (*instances, *templates)]
    write(registry, instances, templates, ids)
    damage, reason = NOT_READ[kind]
    parent = registry.layout.instances if file == "instance.json" else registry.layout.templates
    path = min(parent.iterdir()) / file
    damage(path)
    (path.parent / f".{file}.new").touch()
    found = registry.load()
    ((name, aside),) = {**found.unreadable, **found.unreadable_templates}.items()
    assert name == path.parent.name
    assert aside.reason.startswith(f"{path}: ")
    assert reason in aside.reason
    assert (path.parent / f".{file}.new").exists()
    assert len(found.instances) + len(found.templates) == len(ids) - 1


def test_a_record_that_may_not_be_read_is_set_aside(run_dir: Path) -> None:
    registry = Registry(Layout(run_dir / "data", run_dir))
    instances, templates = family("a", 100)
    write(registry, instances, templates, [fields["id"] for fields in (*instances, *templates)])
    (registry.layout.instance(instances[0]["id"]) / "instance.json").chmod(0)
    for directory in (run_dir, *run_dir.rglob("*/")):
        directory.chmod(0o755)
    with without_roots_rights():
        ((_, aside),) = registry.load().unreadable.items()
    assert aside.reason.endswith("Permission denied")


@contextlib.contextmanager
def without_roots_rights() -> Iterator[None]:
    """Read files as any other user meanwhile: root may read all of them."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_whose_name_is_not_utf_8_can_be_told_of(tmp_path: Path) -> None:
    registry = Registry(Layout(tmp_path / "data", tmp_path))
    registry.open()
    os.mkdir(os.fsencode(registry.layout.instances) + b"/\xff\x1b")  # noqa: PTH102 - no name of a Path
    ((name, aside),) = registry.load().unreadable.items()
    assert (name.encode(), "No such file" in aside.reason) == (rb"\xff\x1b", True)


def change(home: Home, one: str, file: str = "instance.json", **changes: object) -> bytes:
    """Change fields of a record, and return what it is then."""
    folder = "instances" if file == "instance.json" else "templates"
    path = home.data / folder / one / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path.read_bytes()


async def test_a_circle_of_sources_is_shown_and_everything_else_goes_on(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", "passes=0", "hot_mib=1")
        fork = await client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        below = await client.fork("source", ForkRequest(name="below", target_state="Standby"))
    change(home, source.id, source_id=below.id, fork_kind="copy")
    async with supervisor(home) as running:
        client = running.client
        found = {one.name: one for one in await client.instances()}
        assert [found[name].state for name in ("source", "below")] == [State.UNKNOWN, State.UNKNOWN]
        assert (found["source"].id, found["below"].id) == (source.id, below.id)
        for name in ("source", "below"):
            assert "in a circle of sources" in (found[name].state_error or "")
            error = await refused(client.delete(name))
            assert (error.code, "its record is set aside" in error.message) == ("invalid_state", True)
            error = await refused(client.create(CreateRequest(name=name, image="pagewalker")))
            assert (error.code, "repair the record of that one" in error.message) == ("name_conflict", True)
        assert "the record of its source is set aside" in (found["fork"].state_error or "")
        assert (found["fork"].state, found["fork"].vmm_pid) == (State.RUNNING, fork.vmm_pid)
        (template,) = (await client.snapshot()).templates
        assert (template.instance_id, template.fork_count) == (source.id, 1)
        await one_more_pass(client, "fork")
        assert (await client.lineage("fork")).ancestors == ()
    assert (home.data / "instances" / below.id / "mem.0").exists()
    # The page server, whose source nobody may go by, was not ended with the supervisor.
    assert psutil.pid_exists(template.page_server_pid or 0)
    change(home, source.id, source_id=None, fork_kind=None)
    async with supervisor(home) as running:
        client = running.client
        assert (await client.instance("source")).fork_count == 1
        await one_more_pass(client, "fork")
        await client.delete("source", cascade=True)
        assert await client.instances() == []


HARMFUL: list[Fields] = [
    {"id": "victim"},
    {"process": {"pid": 1, "start_time": 0}},
    {"snapshot": {"state": "state.0", "layers": ["../victim/mem.0"], "snapshot_version": "1.0.0"}},
    {"state": "Standby", "snapshot": None},
    {"created_at": "2026-01-01T00:00:00"},
]


@pytest.mark.parametrize("changes", HARMFUL, ids=lambda changes: next(iter(changes)))
async def test_of_a_vm_whose_record_is_not_believed_nothing_is_ended_or_removed(
    embedded: Home, changes: Fields
) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "one", "passes=0", "hot_mib=1")
        one = await client.restore("one")
        victim = await standby_source(client, "victim", "hot_mib=1")
    folder = embedded.data / "instances" / one.id
    written = change(
        embedded, one.id, **{key: victim.id if value == "victim" else value for key, value in changes.items()}
    )
    (folder / "mem.7").touch()
    before = sorted(path.name for path in folder.iterdir())
    async with supervisor(embedded) as running:
        found = await running.client.instances()
        assert [(each.name, each.state) for each in found] == [("victim", State.STANDBY), ("one", State.UNKNOWN)]
        await running.client.restore("victim")
        await running.client.delete("victim")
    assert (folder / "instance.json").read_bytes() == written
    assert sorted(path.name for path in folder.iterdir()) == before
    assert psutil.Process(one.vmm_pid).status() != psutil.STATUS_ZOMBIE
    assert (embedded.run / f"{one.id}.sock").exists()


async def test_a_template_that_is_set_aside_is_told_by_its_instance_and_its_forks(embedded: Home) -> None:
    def told(one: Instance | None) -> bool:
        return one is not None and "the record of its template is set aside" in (one.state_error or "")

    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "passes=0", "hot_mib=1")
        await client.fork("source", SHARED.model_copy(update={"name": "runs"}))
        await client.fork("source", ForkRequest(name="rests", share_memory=True, target_state="Standby"))
        (template,) = (await client.snapshot()).templates
    change(embedded, template.id, "template.json", layers=["../../etc/passwd"])
    async with supervisor(embedded) as running:
        client = running.client
        host = await client.snapshot()
        assert [told(find(host, name)) for name in ("source", "runs", "rests")] == [True] * 3
        (shown,) = (one for one in host.instances if one.state is State.UNKNOWN)
        assert (shown.id, shown.name) == (template.id, f"template-{template.id}")
        await one_more_pass(client, "runs")
        assert "its record is gone or cannot be read" in (await refused(client.restore("rests"))).message
        for name in ("runs", "rests"):
            await client.delete(name)
        for refusal in (client.restore("source"), client.fork("source", SHARED)):
            assert f"remove template {template.id}" in (await refused(refusal)).message
    change(embedded, template.id, "template.json", layers=[f"templates/{template.id}/mem.0"])
    async with supervisor(embedded) as running:
        await running.client.delete("source")


async def test_nothing_of_a_tree_goes_and_no_memory_is_accepted_while_a_fork_may_be_unknown(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client, "source", "hot_mib=1", "passes=0")
        for name in ("known", "aside"):
            await client.fork("source", SHARED.model_copy(update={"name": name}))
        aside = await client.instance("aside")
        (template,) = (await client.snapshot()).templates
        await client.create(CreateRequest(name="other", image="pagewalker", cmd=("hot_mib=1",)))
        await running.end()
    true = (embedded.data / "instances" / aside.id / "instance.json").read_bytes()
    change(embedded, aside.id, next_layer=-1)
    async with supervisor(embedded) as running:
        client = running.client
        for asked in (
            client.delete("source", cascade=True),
            client.deletion_plan("source", cascade=True),
            client.accept("source", AcceptRequest(changed=True)),
        ):
            error = await refused(asked)
            assert (error.status, error.code) == (409, "invalid_state")
            assert "may be a fork of it" in error.message
        assert {one.name for one in await client.instances()} == {"source", "known", "aside", "other"}
        await client.delete("known")
        assert (await client.snapshot()).templates[0].page_server_pid == template.page_server_pid
    # It is served on by a page server that no fork which is known needs.
    assert psutil.pid_exists(template.page_server_pid or 0)
    (embedded.data / "instances" / aside.id / "instance.json").write_bytes(true)
    async with supervisor(embedded) as running:
        await one_more_pass(running.client, "aside")
        await running.client.delete(source.id, cascade=True)
        await running.client.delete("other")
    assert embedded.processes() == []


async def test_whose_a_torn_template_is_its_forks_know(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client, "source", "hot_mib=1", "passes=0")
        await running.client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        (template,) = (await running.client.snapshot()).templates
        await running.end()
    path = embedded.data / "templates" / template.id / "template.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    async with supervisor(embedded) as running:
        for asked in (running.client.delete("source", cascade=True), running.client.accept("source")):
            assert "the record of its template is set aside" in (await refused(asked)).message
        assert (await running.client.instance("fork")).state is State.RUNNING
    path.write_bytes(whole)
    async with supervisor(embedded) as running:
        await one_more_pass(running.client, "fork")
        await running.client.delete("source", cascade=True)
    assert embedded.processes() == []
