"""A record names a process that is somebody else's: it is neither adopted nor killed, and what it was is gone."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.models import CreateRequest, ForkRequest, Instance, State
from supervisor.runtime.own_processes import identity_of, instance_of, is_page_server, is_vmm
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord, ProcessIdentity, TemplateRecord
from supervisor.system.process_group import marked_environment
from supervisor.system.processes import boot_id, start_time_of
from tests.harness.refusals import refused
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

NEW = CreateRequest(name="source", image="pagewalker", cmd=("passes=1", "hot_mib=1"))
SHARED = ForkRequest(name="fork", share_memory=True, target_state="Running", record="off")
ANOTHER_BOOT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def stranger(run_dir: Path) -> Iterator[psutil.Popen]:
    """A process that is nobody's business."""
    with psutil.Popen(("sleep", "1000"), start_new_session=True) as process:
        yield process
        process.kill()


def named(pid: int) -> dict[str, Any]:
    """Return what a record says of a process, as of an earlier version."""
    return {"pid": pid, "start_time": start_time_of(pid)}


def rewrite(path: Path, kind: type[InstanceRecord] | type[TemplateRecord], **changes: object) -> None:
    """Put something else into a record."""
    record = kind.model_validate_json(path.read_bytes())
    path.write_text(kind.model_validate(record.model_dump() | changes).model_dump_json())


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def left_running(home: Home) -> tuple[Instance, int]:
    """Return a VM whose supervisor was killed, and its pid."""
    async with supervisor(home) as running:
        await running.client.create(NEW)
        await running.client.wait("source", State.RUNNING, PATIENCE)
        source = await running.client.instance("source")
        await running.end(signal.SIGKILL)
    assert source.vmm_pid is not None
    return source, source.vmm_pid


@pytest.mark.parametrize("boot", [None, "present"])
async def test_a_vm_whose_pid_is_a_strangers_is_gone_and_the_stranger_lives(
    home: Home, stranger: psutil.Popen, boot: str | None
) -> None:
    source, vmm = await left_running(home)
    record = home.data / "instances" / source.id / "instance.json"
    process = named(stranger.pid) | {"boot_id": boot and boot_id()}
    rewrite(record, InstanceRecord, process=process)
    async with supervisor(home) as running:
        found = await running.client.instance("source")
        assert (found.state, found.vmm_pid) == (State.STOPPED, None)
        # Its own VMM is one that no record names.
        assert not lives(vmm)
        await running.client.delete("source")
    assert lives(stranger.pid)


@pytest.mark.parametrize("pid", [1, 0, -1, 1 << 40])
async def test_a_record_with_a_pid_that_no_vmm_can_have_is_set_aside(embedded: Home, pid: int) -> None:
    async with supervisor(embedded) as running:
        source = await running.client.create(NEW)
        await running.end(signal.SIGKILL)
    process = {"pid": pid, "start_time": start_time_of(1) if pid == 1 else 1}
    rewrite(embedded.data / "instances" / source.id / "instance.json", InstanceRecord, process=process)
    async with supervisor(embedded) as running:
        (shown,) = await running.client.instances()
        assert (shown.state, shown.vmm_pid) == (State.UNKNOWN, None)
        assert "process.pid" in (shown.state_error or "")
        assert (await refused(running.client.delete("source"))).code == "invalid_state"
    assert lives(1)


async def test_a_vm_of_another_boot_is_gone(embedded: Home, stranger: psutil.Popen) -> None:
    async with supervisor(embedded) as running:
        source = await running.client.create(NEW)
        await running.client.wait("source", State.RUNNING, PATIENCE)
        await running.end(signal.SIGKILL)
    path = embedded.data / "instances" / source.id / "instance.json"
    process = InstanceRecord.model_validate_json(path.read_bytes()).process
    assert process is not None and process.boot_id == boot_id()
    rewrite(path, InstanceRecord, process=process.model_dump() | {"boot_id": ANOTHER_BOOT})
    async with supervisor(embedded) as running:
        assert (await running.client.instance("source")).state is State.STOPPED


async def test_the_vm_of_an_earlier_versions_record_is_adopted(home: Home) -> None:
    source, vmm = await left_running(home)
    rewrite(home.data / "instances" / source.id / "instance.json", InstanceRecord, process=named(vmm))
    async with supervisor(home) as running:
        found = await running.client.instance("source")
        assert (found.state, found.vmm_pid) == (State.RUNNING, vmm)
        await running.client.delete("source")


async def test_a_page_server_whose_pid_is_a_strangers_is_gone_and_the_stranger_lives(
    embedded: Home, stranger: psutil.Popen
) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(NEW)
        await running.client.wait("source", State.RUNNING, PATIENCE)
        await running.client.standby("source")
        await running.client.fork("source", SHARED)
        (template,) = (await running.client.snapshot()).templates
        await running.end(signal.SIGKILL)
    assert template.page_server_pid is not None
    server = psutil.Process(template.page_server_pid)
    server.kill()
    psutil.wait_procs([server], timeout=PATIENCE)
    rewrite(
        embedded.data / "templates" / template.id / "template.json", TemplateRecord, page_server=named(stranger.pid)
    )
    async with supervisor(embedded) as running:
        await running.client.wait("fork", State.RUNNING, PATIENCE)
        await running.client.delete("source", cascade=True)
    assert lives(stranger.pid)
    assert embedded.processes() == []


@pytest.mark.parametrize(("options", "found"), [(("--api-sock", "s"), True), ((), False)])
def test_a_vmm_is_known_by_where_it_works_and_its_socket(tmp_path: Path, options: tuple[str, ...], found: bool) -> None:
    layout = Layout(tmp_path, tmp_path)
    layout.instance("a").mkdir(parents=True)
    command = ("sh", "-c", "echo; read x", *options)
    with psutil.Popen(command, cwd=layout.instance("a"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # Its command line is there once it runs.
        process.stdout.readline()
        identity = identity_of(process.pid)
        assert identity is not None
        assert is_vmm(identity, layout, "a") is found
        assert not is_vmm(identity, layout, "b")
        assert not is_vmm(identity.model_copy(update={"boot_id": ANOTHER_BOOT}), layout, "a")
        assert not is_vmm(identity.model_copy(update={"start_time": 1}), layout, "a")
        assert not is_page_server(identity, layout, "a")
        process.kill()


def test_a_vmm_that_hides_where_it_works_is_known_by_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path, tmp_path)
    command = ("sh", "-c", "echo; read x", "--api-sock", str(layout.api_socket("a")))
    with psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        identity = identity_of(process.pid)
        assert identity is not None
        assert not is_vmm(identity, layout, "a")

        def hidden(_: Path) -> Path:
            raise PermissionError

        monkeypatch.setattr(Path, "readlink", hidden)
        assert is_vmm(identity, layout, "a")
        assert not is_vmm(identity, layout, "b")
        process.kill()


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ('["{data}/templates/t/mem.1", "{data}/templates/t/mem.0"]', True),
        ('["{data}/instances/i/mem.1", "{data}/instances/i/mem.0"]', True),
        ('["{data}/instances/i/mem.1", "{data}/instances/i/', True),
        ('["{data}/templates/other/mem.1"]', False),
        ('["{data}/mem.1"]', False),
        ('["/elsewhere/instances/i/mem.1"]', False),
        ('["{data}/loop/t/mem.1"]', False),
        (r'["{data}/templates/\u0000/t/mem.1"]', False),
        (r'["{data}/templates/\x/mem.1"]', False),
        ("[]", False),
    ],
)
def test_a_page_server_is_known_by_its_template_and_where_the_layers_are(
    tmp_path: Path, layers: str, found: bool
) -> None:
    """The first templates had no links of their own: their layers are the instance's."""
    layout = Layout(tmp_path, tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    told = f'{{"template_id": {json.dumps("t")}, "layers": {layers.replace("{data}", str(tmp_path))}'
    command = ("sh", "-c", "echo; read x", "supervisor.uffd.page_server", told)
    with psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        identity = identity_of(process.pid)
        assert identity is not None
        assert is_page_server(identity, layout, "t") is found
        assert not is_page_server(identity, layout, "i")
        process.kill()


def test_a_mark_that_names_no_place_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    mark = next(iter(marked_environment(tmp_path)))
    environment = {mark: str(tmp_path / "loop" / "a")}
    with psutil.Popen(("cat",), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert instance_of(process.pid, Layout(tmp_path, tmp_path)) is None
        process.kill()


def test_the_supervisor_itself_is_none(tmp_path: Path) -> None:
    own = ProcessIdentity(pid=os.getpid(), start_time=start_time_of(os.getpid()))
    assert not is_vmm(own, Layout(tmp_path, tmp_path), "a")
    assert not is_page_server(own, Layout(tmp_path, tmp_path), "a")
