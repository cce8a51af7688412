"""What is true of a supervisor's home whenever no operation is in progress: nothing is half done, nothing is left."""

from pathlib import Path

from forktui.client.api import SupervisorClient
from supervisor.models import HostSnapshot, State
from tests.harness.host_invariants import broken_at_rest
from tests.harness.jails import jail_uid, until_jails_are_gone
from tests.harness.supervisor_process import RunningSupervisor, guest, until


async def whole(running: RunningSupervisor) -> HostSnapshot:
    """Return the host once it is quiet and every page server is there, after it was found to be whole."""
    host = await until(quiet, running.client)
    await until_jails_are_gone(running.home, host)
    assert list(broken_at_rest(running.home, host)) == []
    run = running.home.run
    live = {one.id: one for one in host.instances if one.vmm_pid is not None}
    served = {one.id for one in live.values() if one.memory_backend == "uffd" and one.fork_kind == "share_memory"}
    assert _names(run, "*.sock") == {
        "supervisor.sock",
        *(f"{one}.sock" for one in live if jail_uid(running.home, one) is None),
    }
    assert _names(run, "*.uffd") == set()
    assert _names(run, "*.pages") == {f"{one.id}.pages" for one in host.templates if one.page_server_pid is not None}
    assert _names(run / "pages", "*") == {f"{one}.map" for one in served}
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


def quiet(host: HostSnapshot) -> bool:
    """Return whether no operation is in progress, no guest boots, and every fork that needs a page server has one."""
    served = {one.template_id for one in host.instances if one.vmm_pid is not None and one.memory_backend == "uffd"}
    serving = {one.id for one in host.templates if one.page_server_pid is not None}
    settled = all(one.operation is None and one.state is not State.INITIALIZING for one in host.instances)
    return settled and served - {None} <= serving


def _names(directory: Path, pattern: str) -> set[str]:
    return {path.name for path in directory.glob(pattern)}
