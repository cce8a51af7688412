"""A VMM's process: spawned in a session of its own or adopted, followed to its end, killed with all that it started."""

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from supervisor.consoles.outputs import Holding, input_pipe
from supervisor.errors import VmmError
from supervisor.system.followed_process import FollowedProcess
from supervisor.system.oom_score import give_way
from supervisor.system.process_group import marked_environment
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.logs import final_message, last_message, vmm_outputs
from supervisor.vmm.quarters import Quarters

UMASK: Final = 0o077
"""A mem-file holds all that the guest knew."""

# Exit codes of Firecracker above those of any program: FcExitCode in its src/vmm/src/lib.rs.
_EXIT_CODES: Final = {
    148: "a system call that seccomp forbids",
    149: "SIGBUS",
    150: "SIGSEGV",
    151: "SIGXFSZ",
    152: "bad configuration",
    153: "bad arguments",
    154: "SIGXCPU",
    155: "SIGPIPE",
    156: "SIGHUP",
    157: "SIGILL",
}


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code`, or the number of the `signal` that killed it; neither is known of an adopted one."""

    code: int | None
    signal: int | None
    text: str
    """The same in words, with its last message where that is about its end."""


class Process(FollowedProcess[Exit]):
    """One VMM's process; made by `spawn` or `adopt` in a running event loop."""

    @classmethod
    def spawn(cls, hypervisor: Hypervisor, instance_id: str, quarters: Quarters, consoles: Holding) -> Self:
        """Start a VMM; its logs are begun already.

        It blocks for the half millisecond until the program runs: the interpreter's lock is held meanwhile anyway, and
        a caller that is cancelled cannot lose the process. Raises VmmError where it cannot be started, and OSError.
        """
        directory, command = quarters.directory, quarters.command(hypervisor, instance_id)
        outputs = vmm_outputs(directory, consoles.console_bytes)
        with consoles.pipes(outputs, quarters.fifos) as given, input_pipe() as stdin:

            def start(before: tuple[str, ...], descriptors: tuple[int, ...]) -> "subprocess.Popen[bytes]":
                return subprocess.Popen(
                    (*before, *command),
                    cwd=quarters.working_directory,
                    stdin=stdin,
                    stdout=given.descriptors[1],
                    stderr=given.descriptors[2],
                    env=marked_environment(directory),
                    start_new_session=True,
                    umask=UMASK,
                    pass_fds=descriptors,
                )

            try:
                pid = quarters.start(start)
            except OSError as error:
                raise VmmError(f"{command[0]} cannot be started in {directory}: {error.strerror}") from error
        give_way(pid)
        settle = partial(consoles.drained, pid)
        process = cls.child(pid, partial(_exit, directory), quarters.group, settle)
        given.follow(process.pid, process.start_time)
        return process

    @classmethod
    def adopt(cls, pid: int, start_time: int, quarters: Quarters, consoles: Holding) -> Self | None:
        """Follow a process that is not a child of this one; None where it has ended."""
        directory, settle = quarters.directory, partial(consoles.drained, pid)
        process = cls.found(pid, start_time, partial(_exit, directory), quarters.group, settle)
        if process is not None:
            give_way(pid)
            consoles.adopt(pid, start_time, vmm_outputs(directory, consoles.console_bytes))
        return process

    async def terminate(self) -> None:
        """Kill it and wait until it and all of its group are gone; raises VmmError where one does not go."""
        try:
            # Firecracker's usual end: it keeps nothing that would be lost.
            await self.end()
        except TimeoutError as error:
            raise VmmError(str(error)) from error
        if self.left:
            # Without a look they are told as they were.
            with contextlib.suppress(OSError, RuntimeError):
                await self.end_rest()
        if self.left:
            pids = ", ".join(map(str, self.left))
            raise VmmError(f"pid {pids}, of what pid {self.pid} has started, cannot be ended: end it, and ask again")


def _exit(directory: Path, status: os.waitid_result | None) -> Exit:
    if status is None:
        because = _because(final_message(directory))
        return Exit(None, None, f"its exit status is not known, for an earlier supervisor started it{because}")
    number = status.si_status
    if status.si_code == os.CLD_EXITED:
        meaning = f" ({_EXIT_CODES[number]})" if number in _EXIT_CODES else ""
        because = _because(last_message(directory)) if number else ""
        return Exit(number, None, f"exited with code {number}{meaning}{because}")
    # Most real-time signals have no name.
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    # It says something before it ends itself with SIGABRT only: others come from outside, or unawares.
    because = _because(final_message(directory)) if number == signal.SIGABRT else ""
    return Exit(None, number, f"killed by {name}{because}")


def _because(message: str) -> str:
    return f": {message}" if message else ""
