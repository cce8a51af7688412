"""A jail as where a VMM runs."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from supervisor.jails.roots import API_SOCKET, LOG, UFFD_SOCKET
from supervisor.store.layout import Layout
from supervisor.system.own_cgroups import OwnCgroups
from supervisor.system.process_group import Group, ProcessGroup
from supervisor.system.processes import wait_for_ends
from supervisor.vmm.api_socket import ApiSocket, SocketInJail
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.into_cgroup import Start, begin
from supervisor.vmm.quarters import log_options, started

OPTIONS = ("--api-sock", f"/{API_SOCKET}", *log_options(f"/{LOG}"))
"""What a VMM is told in a jail."""
UFFD_PATH = f"/{UFFD_SOCKET}"
"""Where it sends its userfaultfd to there."""


class InJail:
    """An instance's jail; `command` starts a VMM in it, and is of one that is about to be started only."""

    def __init__(
        self,
        layout: Layout,
        instance_id: str,
        cgroups: OwnCgroups | None,
        command: Sequence[str] = (),
        helper: Path | None = None,
    ) -> None:
        """`helper` begins it in its cgroup; without that it moves there."""
        root = layout.jail_root(instance_id)
        self.directory = layout.instance(instance_id)
        self.working_directory = self.directory
        self.socket: ApiSocket = SocketInJail(root / API_SOCKET)
        self.fifos: Mapping[int, Path] = {2: root / LOG}
        self._instance_id = instance_id
        self._cgroups = cgroups
        self._command = command
        self._helper = helper

    def clear(self) -> None:
        """It is made anew for each start."""

    def command(self, hypervisor: Hypervisor, instance_id: str) -> Sequence[str]:
        """Return what starts the jailer."""
        assert instance_id == self._instance_id and self._command, f"{hypervisor.name} of another instance"
        return self._command

    def start(self, program: Start) -> int:
        """Start it where it is held to its limits from the beginning; without the helper that is soon after."""
        assert self._cgroups is not None, "one that an earlier supervisor has started"
        if self._helper is None:
            # The jailer moves itself into the cgroup of the second version.
            pid = started(program((), ()))
            self._cgroups.join(self._instance_id, pid)
            return pid
        with self._cgroups.held(self._instance_id) as (cgroup, tasks):
            return begin(self._helper, cgroup, tasks, program)

    def group(self, pid: int, start_time: int) -> Group:
        """Return what is in its cgroup; of what an earlier supervisor started, where that has none, its session."""
        if self._cgroups is None:
            return ProcessGroup(pid, start_time, self.directory)
        return CgroupOf(self._cgroups, self._instance_id, pid)


class CgroupOf:
    """The processes of a jailed VMM, which none of them can leave."""

    def __init__(self, cgroups: OwnCgroups, instance_id: str, leader: int) -> None:
        self._cgroups = cgroups
        self._instance_id = instance_id
        self._leader = leader

    def kill_unseen(self) -> None:
        """Kill all, or where there is no descriptor for that, the session that the leader began."""
        try:
            self._cgroups.kill(self._instance_id)
        except OSError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader, signal.SIGKILL)

    def end(self, seconds: float) -> tuple[int, ...]:
        """Kill all, and return which but the leader live after `seconds`; raises OSError."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(FileNotFoundError):
            self._cgroups.kill(self._instance_id)
        while (left := self._others()) and (remaining := deadline - time.monotonic()) > 0:
            with contextlib.ExitStack() as opened:
                pidfds = []
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        pidfds.append(os.pidfd_open(pid))
                        opened.callback(os.close, pidfds[-1])
                wait_for_ends(pidfds, remaining)
        return left

    def _others(self) -> tuple[int, ...]:
        try:
            return tuple(pid for pid in self._cgroups.processes(self._instance_id) if pid != self._leader)
        except FileNotFoundError:
            return ()
