"""What a supervisor leaves that is killed between a start and its record: processes and sockets of nobody's."""

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from supervisor.errors import InvalidStateError
from supervisor.runtime.own_processes import holds_consoles, identity_of, instance_of, same, template_of
from supervisor.store.layout import Layout
from supervisor.store.records import ProcessIdentity
from supervisor.system.process_group import ProcessGroup
from supervisor.system.processes import KILL_TIMEOUT, kill, open_pidfd, wait_for_ends
from supervisor.system.unix_sockets import listener_at, remove_file


def check_run_directory(layout: Layout, known: Collection[str]) -> None:
    """Raise InvalidStateError where VMs or page servers of another data directory listen in the run directory.

    `known` are the ids of what belongs here. Their sockets would be removed as nobody's, and they could not be reached
    any more.
    """
    found = chain.from_iterable(map(layout.run_dir.glob, layout.listening_patterns))
    sockets = [path for path in found if path.stem not in known]
    listening = set(filter(None, map(listener_at, sockets)))
    if listening:
        listening.difference_update((one.pid, one.start_time) for one, _ in _programs(layout))
    if listening:
        pids = ", ".join(str(pid) for pid, _ in sorted(listening))
        raise InvalidStateError(
            f"{layout.run_dir} has the sockets of processes of another data directory (pid {pids}): give that one with "
            "--data-dir, or name another with --run-dir"
        )


def reap(layout: Layout, known: Collection[ProcessIdentity], spared: Collection[str]) -> list[int]:
    """End every VMM, page server and console holder of this data directory but those that are known; return the pids.

    What a VMM has started is known with it. `spared` are names of directories whose records cannot be read: nobody
    knows what is theirs. It blocks until the processes are gone. The caller is the data directory's only supervisor.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + KILL_TIMEOUT
    # What they start before they are ended is found by the next look.
    while (found := _unknown(layout, known, spared)) and time.monotonic() < deadline:
        ended.update(identity.pid for identity, _ in found)
        _end(found)
    return sorted(ended)


def end(identity: ProcessIdentity) -> None:
    """Kill the process of this identity, if it is there, and wait until it is gone. It blocks."""
    with contextlib.suppress(OSError):
        pidfd = open_pidfd(identity.pid, identity.start_time)
        if pidfd is not None:
            try:
                kill(pidfd)
                wait_for_ends([pidfd], KILL_TIMEOUT)
            finally:
                os.close(pidfd)


def _unknown(
    layout: Layout, known: Collection[ProcessIdentity], spared: Collection[str]
) -> list[tuple[ProcessIdentity, Path]]:
    found = list(_programs(layout))
    recorded = [(one, directory) for one, directory in found if any(same(one, other) for other in known)]
    # What a VMM has started goes on with it; a template's page server is one process.
    whole = {directory for _, directory in recorded if directory.parent == layout.instances}
    return [
        (one, directory)
        for one, directory in found
        if (one, directory) not in recorded and directory not in whole and directory.name not in spared
    ]


def _end(found: Collection[tuple[ProcessIdentity, Path]]) -> None:
    """Kill those of these processes that are there, with what is in their sessions, and wait until they are gone."""
    with contextlib.ExitStack() as stack:
        killed = []
        for identity, directory in found:
            with contextlib.suppress(OSError):
                pidfd = open_pidfd(identity.pid, identity.start_time)
                if pidfd is not None:
                    stack.callback(os.close, pidfd)
                    killed.append(pidfd)
                    try:
                        ProcessGroup(identity.pid, identity.start_time, directory).end(KILL_TIMEOUT)
                    finally:
                        kill(pidfd)
        wait_for_ends(killed, KILL_TIMEOUT)


def sweep_run_directory(layout: Layout, kept: Collection[Path]) -> None:
    """Remove the sockets and page maps that are named after an instance or a template, but those to be kept.

    What is beside a page map stays with it.
    """
    found = {path: path for path in chain.from_iterable(map(layout.run_dir.glob, layout.run_file_patterns))}
    beside = chain.from_iterable(map(layout.run_dir.glob, layout.beside_page_map_patterns))
    found |= {path: layout.page_map_beside(path) for path in beside}
    for path, belongs_to in found.items():
        if belongs_to not in kept:
            remove_file(path)


def _programs(layout: Layout) -> Iterator[tuple[ProcessIdentity, Path]]:
    """Yield VMMs, what they started, page servers and console holders, each with the directory that it is of."""
    names = os.listdir("/proc")  # noqa: PTH208 - no path is to be made of each
    for pid in (int(name) for name in names if name.isdecimal() and int(name) not in (1, os.getpid())):
        # Before anything else is read of it, so that no later process of this pid is taken for it.
        identity = identity_of(pid)
        if identity is None:
            continue
        if instance_id := instance_of(pid, layout):
            yield identity, layout.instance(instance_id)
        elif template_id := template_of(pid, layout):
            yield identity, layout.template(template_id)
        elif holds_consoles(pid, layout):
            yield identity, layout.data_dir
