"""What holds on a host whatever was done to it: of one moment, and of its processes and files at rest."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from supervisor.models import HostSnapshot, Instance, InstanceStatistics, State, Template
from tests.harness.jails import left_of_jails
from tests.harness.supervisor_process import Home, console_holder

HAS_VMM = frozenset({State.INITIALIZING, State.RUNNING, State.PAUSED})
NOT_OF_INSTANCES = frozenset({"supervisor.sock", "lock", "pages", "consoles.control"})


def broken_instance(one: Instance) -> Iterator[str]:
    """Yield what cannot be true of an instance, whatever is being done to it."""
    if one.mem_locked is not (one.fork_count > 0):
        yield f"{one.name}: mem_locked is {one.mem_locked} with fork_count {one.fork_count}"
    if one.mem_locked and one.state is not State.STANDBY:
        yield f"{one.name}: {one.state} although {one.locked_by} read its memory"
    if one.state is State.UNKNOWN:
        yield f"{one.name}: Unknown: {one.state_error}"
    if one.busy is None and (one.state in HAS_VMM) is not (one.vmm_pid is not None):
        yield f"{one.name}: {one.state} with vmm_pid {one.vmm_pid}"


def broken_tree(instances: Iterable[Instance], templates: Iterable[Template] = ()) -> Iterator[str]:
    """Yield what cannot be true of one moment's instances and templates together."""
    members = {one.id: one for one in instances}
    for one in members.values():
        yield from broken_instance(one)
    yield from (f"{name}: the name of {count}" for name, count in _names(members.values()).items() if count > 1)
    shares = [one for one in members.values() if one.fork_kind == "share_memory"]
    counted = Counter(one.source_id for one in shares)
    for one in members.values():
        if one.fork_count != counted[one.id]:
            yield f"{one.name}: fork_count {one.fork_count}, and {counted[one.id]} share_memory forks of it live"
    yield from (f"{one.name}: its source {one.source_id} is gone" for one in shares if one.source_id not in members)
    yield from (f"{one.name}: it descends from itself" for one in members.values() if _in_a_circle(one, members))
    by_id = {template.id: template for template in templates}
    for template in by_id.values():
        if template.fork_count != counted[template.instance_id]:
            yield f"template {template.id}: fork_count {template.fork_count}, not {counted[template.instance_id]}"
        if template.instance_id not in members:
            yield f"template {template.id}: its instance {template.instance_id} is gone"
    for one in shares if by_id else ():
        held = by_id.get(one.template_id or "")
        if held is None or held.instance_id != one.source_id:
            yield f"{one.name}: it reads template {one.template_id}, which is not one of its source"


def corrupt_guests(statistics: Iterable[InstanceStatistics]) -> Iterator[str]:
    """Yield every guest that has read a wrong byte."""
    yield from (f"{one.id}: CORRUPT {one.guest.corrupt}" for one in statistics if one.guest and one.guest.corrupt)


def broken_at_rest(home: Home, host: HostSnapshot) -> Iterator[str]:
    """Yield what is wrong with a home in which no request is in progress: its records, processes and files."""
    yield from broken_tree(host.instances, host.templates)
    yield from corrupt_guests(host.statistics)
    yield from (f"{one.name}: busy with {one.busy}, which nobody asked for" for one in host.instances if one.busy)
    yield from _differences("VMMs", vmms(home), {one.vmm_pid: one.id for one in host.instances if one.vmm_pid})
    pids = {template.page_server_pid for template in host.templates} - {None}
    others = (
        {process.pid for process in home.processes()} - set(vmms(home)) - {host.supervisor.pid, console_holder(home)}
    )
    yield from _differences("page servers", others, pids)
    yield from (
        f"zombie {child.pid} ({child.name()})"
        for child in psutil.Process(host.supervisor.pid).children()
        if child.status() == psutil.STATUS_ZOMBIE
    )
    yield from _differences("directories", names(home.data / "instances"), {one.id for one in host.instances})
    yield from _differences("templates", names(home.data / "templates"), {one.id for one in host.templates})
    for one in host.instances:
        yield from broken_directory(home.data / "instances" / one.id)
    running = {one.id for one in host.instances if one.vmm_pid}
    sockets = {f"{one}.sock" for one in running} | {f"{template.id}.pages" for template in host.templates}
    yield from _differences("sockets", (names(home.run) - NOT_OF_INSTANCES) | sockets, sockets)
    yield from left_of_jails(home, running)
    yield from _differences("page maps", names(home.run / "pages") - {f"{one}.map" for one in running}, set())


def broken_directory(directory: Path) -> Iterator[str]:
    """Yield what is wrong with the directory of an instance to which nothing is being done."""
    record = json.loads((directory / "instance.json").read_text())
    if record["intent"] is not None:
        yield f"{directory}: its {record['intent']} is neither done nor undone"
    if record["snapshot_unfinished"] and record["process"] is None:
        yield f"{directory}: a snapshot of it is unfinished, and it has no VMM"
    if record["process"] is not None and (record["fork_kind"] == "share_memory") is not record["attached"]:
        yield f"{directory}: a {record['fork_kind']} whose memory comes from its source: {record['attached']}"
    snapshot = record["snapshot"]
    layers = {path.name for pattern in ("state.*", "mem.*") for path in directory.glob(pattern)}
    yield from _differences(f"{directory}", layers, {snapshot["state"], *snapshot["layers"]} if snapshot else set())
    yield from _differences(f"{directory}", {path.name for path in directory.glob(".*")}, set())


def left_over(home: Home) -> list[str]:
    """Return what is left in a home whose instances were deleted and whose supervisor has ended."""
    return [
        *(f"process {process.pid}: {' '.join(process.cmdline())[:200]}" for process in home.processes()),
        *(str(path) for folder in ("instances", "templates") for path in (home.data / folder).iterdir()),
        *(str(path) for path in home.run.rglob("*") if path.name != "pages"),
        *left_of_jails(home),
    ]


def vmms(home: Home) -> dict[int, str]:
    """Return the ids of the instances that every VMM process of this home is of, by its pid."""
    found = {}
    for process in home.processes():
        with contextlib.suppress(psutil.Error, ValueError):
            command = process.cmdline()
            if "--api-sock" in command:
                found[process.pid] = command[command.index("--id") + 1]
    return found


def names(directory: Path) -> set[str]:
    """Return the names in a directory."""
    return {path.name for path in directory.iterdir()}


def _names(instances: Iterable[Instance]) -> Counter[str]:
    return Counter(one.name for one in instances)


def _in_a_circle(one: Instance, members: dict[str, Instance]) -> bool:
    seen, source = {one.id}, one.source_id
    while source is not None and source in members:
        if source in seen:
            return True
        seen.add(source)
        source = members[source].source_id
    return False


def _differences(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what}: {found}, and it should be {expected}"
