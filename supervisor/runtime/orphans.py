"""What a supervisor leaves that is killed between a start and its record: processes and sockets of nobody's."""

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

import psutil

from supervisor.errors import InvalidStateError
from supervisor.store.layout import Layout
from supervisor.store.records import ProcessIdentity
from supervisor.system.processes import kill, open_pidfd, start_time_of, wait_for_ends
from supervisor.system.unix_sockets import listener_at

END_TIMEOUT: Final = 10.0
"""Seconds; a process that is still there after SIGKILL waits in the kernel for a device that does not answer."""


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
    """End every VMM and page server of this data directory but those that are known; return the pids.

    `spared` are names of directories whose records cannot be read: nobody knows what is theirs. It blocks until the
    processes are gone. The caller is the data directory's only supervisor.
    """
    found = [identity for identity, directory in _programs(layout) if directory not in spared and identity not in known]
    _end(found)
    return [identity.pid for identity in found]


def end(identity: ProcessIdentity) -> None:
    """Kill the process of this identity, if it is there, and wait until it is gone. It blocks."""
    _end([identity])


def _end(identities: Collection[ProcessIdentity]) -> None:
    """Kill those of these processes that are there, and wait until they are gone."""
    with contextlib.ExitStack() as stack:
        killed = []
        for identity in identities:
            with contextlib.suppress(OSError):
                pidfd = open_pidfd(identity.pid, identity.start_time)
                if pidfd is not None:
                    stack.callback(os.close, pidfd)
                    kill(pidfd)
                    killed.append(pidfd)
        wait_for_ends(killed, END_TIMEOUT)


def sweep_run_directory(layout: Layout, kept: Collection[Path]) -> None:
    """Remove the sockets and page maps that are named after an instance or a template, but those to be kept."""
    for path in chain.from_iterable(map(layout.run_dir.glob, layout.run_file_patterns)):
        if path not in kept:
            path.unlink(missing_ok=True)


def _programs(layout: Layout) -> Iterator[tuple[ProcessIdentity, str]]:
    """Yield VMMs, known by their working directory, and page servers, by the layers that they serve; each with the name
    of its instance's or template's directory.

    An operator's shell may be in such a directory as well: it has no API socket.
    """
    home = f"{layout.instances.resolve()}{os.sep}"
    # As it is in the JSON that a page server is started with.
    layers = json.dumps(f"{layout.templates.absolute()}{os.sep}")[1:-1]
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # Before anything else is read of it, so that no later process of this pid is taken for it.
            identity = _identity(process.pid)
            if identity is None:
                continue
            command = process.cmdline()
            if "--api-sock" in command and process.cwd().startswith(home):
                yield identity, _first(process.cwd(), home)
            elif any("supervisor.uffd.page_server" in word for word in command) and layers in command[-1]:
                yield identity, _first(command[-1], layers)


def _first(text: str, prefix: str) -> str:
    """Return the name that follows the first `prefix`."""
    return text.partition(prefix)[2].partition(os.sep)[0]


def _identity(pid: int) -> ProcessIdentity | None:
    try:
        return ProcessIdentity(pid=pid, start_time=start_time_of(pid))
    except OSError:
        return None
