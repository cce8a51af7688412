"""Programs in a VMM's place that end, never listen or are not there: each is quoted, named or ended."""

import asyncio
import os
import sys
import textwrap
from pathlib import Path

import pytest

from supervisor.errors import VmmError
from supervisor.vmm import driver
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, embedded_hypervisor
from supervisor.vmm.inotify import creations
from supervisor.vmm.quarters import InDirectory
from tests.harness.plain_outputs import PLAIN
from tests.harness.vmm_processes import TIMEOUT, is_gone


def program(script: str) -> Hypervisor:
    """Return a VMM that is a shell script; its $1 is the path of the API's socket."""
    return Hypervisor("firecracker", ("/bin/sh", "-c", f"shift; {script}", "sh"), "1.12.1", "6.0.0")


async def spawn_program(hypervisor: Hypervisor, run_dir: Path) -> Vmm:
    return await Vmm.spawn(
        hypervisor,
        instance_id="vm",
        quarters=InDirectory(run_dir, run_dir / "s"),
        config_file=None,
        consoles=PLAIN,
        name="web-1",
    )


RECORD = "2026-01-31T12:00:00.000000000 [vm:main]"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no luck >&2; exit 3", "web-1: the VMM has ended: exited with code 3: no luck"),
        ("exit 148", "web-1: the VMM has ended: exited with code 148 (a system call that seccomp forbids)"),
        (
            f"echo '{RECORD} Firecracker panicked at mod.rs:1:2:' >&2; echo broken >&2; kill -ABRT $$",
            "web-1: the VMM has ended: killed by SIGABRT: broken",
        ),
        ("echo 'stack overflow' >&2; kill -ABRT $$", "web-1: the VMM has ended: killed by SIGABRT: stack overflow"),
        ("exit 0", "web-1: the VMM has ended: exited with code 0"),
    ],
)
async def test_a_program_that_ends_instead_of_listening_is_quoted(run_dir: Path, script: str, reason: str) -> None:
    with pytest.raises(VmmError) as ended:
        await spawn_program(program(script), run_dir)
    assert ended.value.message == reason


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("touch -d @1 vmm.log; exit 3", "exited with code 3"),
        ("touch -d @1 vmm.log; exit 148", "exited with code 148 (a system call that seccomp forbids)"),
        ("touch -d @1 vmm.log; echo no luck >&2; exit 1", "exited with code 1: no luck"),
        ("exit 0", "exited with code 0"),
        ("kill -KILL $$", "killed by SIGKILL"),
        ("kill -ABRT $$", "killed by SIGABRT"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -QUIT $$", "killed by SIGQUIT"),
        ("kill -USR1 $$", "killed by SIGUSR1"),
        ("kill -40 $$", "killed by signal 40"),
        ("echo broken >> vmm.log; touch -d @1 vmm.log; kill -ABRT $$", "killed by SIGABRT"),
    ],
)
async def test_a_warning_is_no_cause_of_an_end(run_dir: Path, script: str, how: str) -> None:
    with pytest.raises(VmmError) as ended:
        await spawn_program(program(f"echo '{RECORD} a warning' > vmm.log; {script}"), run_dir)
    assert ended.value.message == f"web-1: the VMM has ended: {how}"


async def test_a_program_that_is_not_there_is_named(run_dir: Path) -> None:
    with pytest.raises(VmmError, match=r"^/nowhere/firecracker cannot be started in .*: No such file or directory$"):
        await spawn_program(Hypervisor("firecracker", ("/nowhere/firecracker",), "", ""), run_dir)


async def test_a_run_directory_that_is_not_there_is_named(run_dir: Path) -> None:
    with pytest.raises(VmmError, match=r"^vm: embedded cannot be started: .*/gone: No such file or directory$"):
        await Vmm.spawn(
            embedded_hypervisor(),
            instance_id="vm",
            quarters=InDirectory(run_dir, run_dir / "gone" / "s"),
            config_file=None,
            consoles=PLAIN,
        )


async def test_a_program_that_never_listens_is_ended(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LISTEN_TIMEOUT", 0.2)
    with pytest.raises(VmmError, match=r"^web-1: the VMM does not listen on .*/s after 0 s$"):
        await spawn_program(program("echo $$ > pid; exec sleep 60"), run_dir)
    assert is_gone(int((run_dir / "pid").read_text()))


async def test_a_spawn_that_is_cancelled_leaves_no_process(run_dir: Path) -> None:
    async with creations(run_dir) as created:
        spawning = asyncio.create_task(spawn_program(program("echo $$ > pid; mv pid started; exec sleep 60"), run_dir))
        while not (run_dir / "started").exists():
            created.clear()
            await asyncio.wait_for(created.wait(), TIMEOUT)
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning
    assert is_gone(int((run_dir / "started").read_text()))


BINDS_FIRST = textwrap.dedent(
    """
    import socket, sys
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    open("bound", "w").close()
    open("listen").read()
    listener.listen()
    open("never").read()
    """
)


async def test_a_socket_that_is_bound_and_does_not_listen_yet_is_awaited(run_dir: Path) -> None:
    os.mkfifo(run_dir / "listen")
    os.mkfifo(run_dir / "never")
    (run_dir / "program.py").write_text(BINDS_FIRST)
    async with creations(run_dir) as created:
        hypervisor = program(f'exec {sys.executable} program.py "$1"')
        spawning = asyncio.create_task(spawn_program(hypervisor, run_dir))
        while not (run_dir / "bound").exists():
            created.clear()
            await asyncio.wait_for(created.wait(), TIMEOUT)
    assert not spawning.done()
    await asyncio.to_thread((run_dir / "listen").write_text, "now")
    vmm = await asyncio.wait_for(spawning, TIMEOUT)
    await vmm.terminate()
