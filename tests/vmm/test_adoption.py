"""VMMs of another supervisor: which process is adopted, and which is not."""

import asyncio
import contextlib
import os
import resource
import sys
import textwrap
from pathlib import Path

from supervisor.system.processes import start_time_of
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.process import Exit, Process
from supervisor.vmm.quarters import InDirectory
from tests.harness.plain_outputs import PLAIN
from tests.harness.vmm_processes import TIMEOUT, exit_of

ANOTHER_SUPERVISOR = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from supervisor.vmm.driver import Vmm
    from supervisor.vmm.hypervisor import Hypervisor
    from supervisor.vmm.quarters import InDirectory
    from tests.harness.plain_outputs import PLAIN

    async def main(name, run_dir, *command):
        vmm = await Vmm.spawn(
            Hypervisor(name, command, "", ""), instance_id="vm",
            quarters=InDirectory(Path(run_dir), Path(run_dir, "vm.sock")), config_file=None, consoles=PLAIN,
        )
        print(vmm.pid, vmm.start_time)
        await vmm.disconnect()

    asyncio.run(main(*sys.argv[1:]))
    """
)


async def spawn_from_elsewhere(hypervisor: Hypervisor, run_dir: Path) -> tuple[int, int]:
    """Start a VMM by a process that ends, without a word; returns the VMM's pid and start time."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        ANOTHER_SUPERVISOR,
        hypervisor.name,
        run_dir,
        *hypervisor.command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(), TIMEOUT)
    assert complaints == b""
    pid, start_time = out.split()
    return int(pid), int(start_time)


async def test_a_vmm_of_another_supervisor_is_adopted(hypervisor: Hypervisor, run_dir: Path) -> None:
    pid, start_time = await spawn_from_elsewhere(hypervisor, run_dir)
    socket = run_dir / "vm.sock"

    async def adopt(start_time: int) -> Vmm | None:
        return await Vmm.adopt(
            instance_id="vm",
            quarters=InDirectory(run_dir, socket),
            pid=pid,
            start_time=start_time,
            consoles=PLAIN,
        )

    vmm = await adopt(start_time)
    assert vmm is not None
    try:
        assert (await vmm.api.describe()).id == "vm"
    finally:
        await vmm.terminate()
    assert await exit_of(vmm) == Exit(None, None, "its exit status is not known, for an earlier supervisor started it")
    assert not socket.exists()
    socket.touch()
    assert await adopt(start_time) is None
    assert not socket.exists()


async def test_a_pid_that_was_given_to_another_process_is_not_adopted(run_dir: Path) -> None:
    socket = run_dir / "vm.sock"
    adopted = await Vmm.adopt(
        instance_id="vm",
        quarters=InDirectory(run_dir, socket),
        pid=os.getpid(),
        start_time=1,
        consoles=PLAIN,
    )
    assert adopted is None


async def test_a_process_is_adopted_by_a_supervisor_of_many(run_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        # select(2) takes no descriptor from 1024 on.
        for _ in range(1024):
            stack.callback(os.close, os.dup(0))
        own = os.getpid()
        adopted = Process.adopt(own, start_time_of(own), InDirectory(run_dir, run_dir / "s"), PLAIN)
        assert adopted is not None
        adopted.disconnect()
