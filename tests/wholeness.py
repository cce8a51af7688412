"""What is true of a supervisor's home whenever no operation is in progress: nothing is half done, nothing is left."""

import json
from pathlib import Path

from forktui.client import SupervisorClient
from supervisor.models import HostSnapshot, State
from tests.supervisor_process import RunningSupervisor, guest, until

RUNNING = (State.INITIALIZING, State.RUNNING, State.PAUSED)


async def whole(running: RunningSupervisor) -> HostSnapshot:
    """Return the host once it is quiet and every page server is there, after it was found to be whole.

    Processes, sockets, page maps, directories, layers and records are exactly those of the instances that the
    supervisor shows; the locks are those of their forks.
    """
    host = await until(_quiet, running.client)
    live = {one.id: one for one in host.instances if one.vmm_pid is not None}
    served = {one.id for one in live.values() if one.memory_backend == "uffd" and one.fork_kind == "share_memory"}
    servers = {one.id: one.page_server_pid for one in host.templates if one.page_server_pid is not None}
    assert {one.id for one in host.instances if one.state in RUNNING} == set(live)
    pids = {process.pid for process in running.home.processes()}
    assert pids == {running.process.pid, *(one.vmm_pid for one in live.values()), *servers.values()}
    _check_forest(host)
    run = running.home.run
    assert _names(run, "*.sock") == {"supervisor.sock", *(f"{one}.sock" for one in live)}
    assert _names(run, "*.uffd") == set()
    assert _names(run, "*.pages") == {f"{one}.pages" for one in servers}
    assert _names(run / "pages", "*") == {f"{one}.map" for one in served}
    data = running.home.data
    assert _names(data / "instances", "*") == {one.id for one in host.instances}
    assert _names(data / "templates", "*") == {one.id for one in host.templates}
    for one in host.instances:
        _check_directory(data / "instances" / one.id)
    return host


async def walked_on(client: SupervisorClient) -> None:
    """Return when every guest that runs has verified its memory once more, from beginning to end."""
    before = await until(lambda host: all(_verdict(host, name) for name in _running(host)), client)
    names = _running(before)

    def on(host: HostSnapshot) -> bool:
        return all(guest(host, name).corrupt or _verdict(host, name) >= _verdict(before, name) + 2 for name in names)

    after = await until(on, client)
    assert [name for name in names if guest(after, name).corrupt] == []


def _verdict(host: HostSnapshot, name: str) -> int:
    return guest(host, name).passes


def _running(host: HostSnapshot) -> list[str]:
    return [one.name for one in host.instances if one.state is State.RUNNING]


def _quiet(host: HostSnapshot) -> bool:
    served = {one.template_id for one in host.instances if one.vmm_pid is not None and one.memory_backend == "uffd"}
    serving = {one.id for one in host.templates if one.page_server_pid is not None}
    settled = all(one.operation is None and one.state is not State.INITIALIZING for one in host.instances)
    return settled and served - {None} <= serving


def _check_forest(host: HostSnapshot) -> None:
    names = {one.name for one in host.instances}
    assert len(names) == len(host.instances)
    for one in host.instances:
        forks = {fork.name for fork in host.instances if fork.source_id == one.id and fork.fork_kind == "share_memory"}
        assert (one.fork_count, one.mem_locked) == (len(forks), bool(forks))
        assert set(one.locked_by) <= forks
        assert not (one.mem_locked and one.state is not State.STANDBY)


def _check_directory(directory: Path) -> None:
    record = json.loads((directory / "instance.json").read_text())
    assert record["intent"] is None
    assert not record["snapshot_unfinished"] or record["process"] is not None
    snapshot = record["snapshot"]
    kept = {snapshot["state"], *snapshot["layers"]} if snapshot else set()
    assert _names(directory, "state.*") | _names(directory, "mem.*") == kept
    assert _names(directory, ".*") == set()


def _names(directory: Path, pattern: str) -> set[str]:
    return {path.name for path in directory.glob(pattern)}
