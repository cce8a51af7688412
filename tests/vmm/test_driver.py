"""The driver, against a real Firecracker and the embedded VMM."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from supervisor.errors import BadRequestError, VmmError
from supervisor.images.boot_image import load_image, prepare
from supervisor.system.processes import start_time_of
from supervisor.vmm import driver
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, available, embedded_hypervisor
from supervisor.vmm.inotify import creations
from supervisor.vmm.process import Exit, Process
from tests.harness.waiting import until_console_says

TIMEOUT = 30.0
MEMORY_MIB = 40
Spawn = Callable[..., Awaitable[Vmm]]


@pytest.fixture(params=["embedded", "firecracker"])
def hypervisor(request: pytest.FixtureRequest) -> Hypervisor:
    """Return each hypervisor in turn."""
    if request.param == "embedded":
        return embedded_hypervisor()
    found = available(request.getfixturevalue("firecracker"))["firecracker"]
    assert isinstance(found, Hypervisor)
    return found


@pytest.fixture
async def spawn(hypervisor: Hypervisor, run_dir: Path) -> AsyncIterator[Spawn]:
    """Return a function that starts a VMM in a directory of its own, `run_dir/<name>`; they end with the test."""
    spawned: list[Vmm] = []

    async def start(name: str = "vm", config_file: str | None = None) -> Vmm:
        directory = run_dir / name
        directory.mkdir(exist_ok=True)
        vmm = await Vmm.spawn(
            hypervisor,
            instance_id=name,
            directory=directory,
            api_socket=run_dir / f"{name}.sock",
            config_file=config_file,
        )
        spawned.append(vmm)
        return vmm

    yield start
    for vmm in spawned:
        await vmm.terminate()


def place_pagewalker(directory: Path, *words: str) -> None:
    """Prepare an instance's directory."""
    directory.mkdir(exist_ok=True)
    image = load_image(directory, "pagewalker")
    prepare(image, directory, memory_mib=MEMORY_MIB, vcpus=1, boot_args_extra=("hot_mib=1", *words))


async def exit_of(vmm: Vmm) -> Exit:
    """Wait for a VMM's end."""
    return await asyncio.wait_for(asyncio.shield(vmm.exited), TIMEOUT)


def is_gone(pid: int) -> bool:
    """Return whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


async def test_an_api_answers_once_it_is_spawned(spawn: Spawn, hypervisor: Hypervisor, run_dir: Path) -> None:
    vmm = await spawn()
    description = await vmm.api.describe()
    assert (description.id, description.state, description.version) == ("vm", "Not started", hypervisor.version)
    # Neither a terminal's ^C nor its end reaches it.
    assert os.getsid(vmm.pid) == vmm.pid
    await vmm.terminate()
    assert is_gone(vmm.pid)
    assert not (run_dir / "vm.sock").exists()
    assert await exit_of(vmm) == Exit(None, signal.SIGKILL, "killed by SIGKILL")


async def test_a_guest_boots_and_its_console_is_kept_across_runs(spawn: Spawn, run_dir: Path) -> None:
    place_pagewalker(run_dir / "vm", "passes=2")
    console = run_dir / "vm" / "console.log"
    for _ in range(2):
        vmm = await spawn(config_file="vm.json")
        assert (await vmm.api.describe()).state == "Running"
        await until_console_says(console, "done")
        await vmm.terminate()
        assert console.read_text() == "ready\npass 1\npass 2\ndone\n"
        console.rename(run_dir / "earlier")
        console.write_text("")


async def test_a_console_goes_on_where_it_ended(spawn: Spawn, run_dir: Path) -> None:
    place_pagewalker(run_dir / "vm", "passes=1")
    console = run_dir / "vm" / "console.log"
    console.write_text("of an earlier run\n")
    await spawn(config_file="vm.json")
    await until_console_says(console, "done")
    assert console.read_text().startswith("of an earlier run\nready\n")


async def test_a_snapshot_is_taken_and_loaded_by_relative_paths(spawn: Spawn, run_dir: Path) -> None:
    place_pagewalker(run_dir / "vm", "passes=1")
    vmm = await spawn(config_file="vm.json")
    await until_console_says(run_dir / "vm" / "console.log", "done")
    await vmm.api.pause()
    assert (await vmm.api.describe()).state == "Paused"
    await vmm.api.create_snapshot("state", "mem")
    assert (run_dir / "vm" / "mem").stat().st_size == MEMORY_MIB << 20
    assert (run_dir / "vm" / "mem").stat().st_mode & 0o077 == 0
    fork = run_dir / "fork"
    fork.mkdir()
    for name in ("state", "mem"):
        os.link(run_dir / "vm" / name, fork / name)
    restored = await spawn("fork")
    await restored.api.load_snapshot("state", "File", "mem", resume=False)
    assert (await restored.api.describe()).state == "Paused"
    await restored.api.resume()
    await until_console_says(fork / "console.log", "restored")
    await until_console_says(fork / "console.log", "done")
    assert "CORRUPT" not in (fork / "console.log").read_text()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            '{"boot-source": {"kernel_image_path": "gone"}}',
            "PUT /boot-source: Boot source error: The kernel file cannot",
        ),
        ('{"boot-source": {"kernel_image_path": "bad.json"}}', "refused PUT /"),
        ('{"machine-config": {"vcpu_count": 99, "mem_size_mib": 64}}', "The number of vCPUs must be greater than 0"),
        ("{}", "PUT /actions: "),
        ('{"drives": [{"is_root_device": true}]}', "bad.json is not a VM's configuration: KeyError('drive_id')"),
        ("{", "bad.json is not a VM's configuration: JSONDecodeError"),
    ],
)
async def test_a_vm_that_cannot_boot_says_why_and_is_gone(
    spawn: Spawn, run_dir: Path, config: str, reason: str
) -> None:
    place_pagewalker(run_dir / "vm")
    (run_dir / "vm" / "bad.json").write_text(config)
    with pytest.raises(VmmError) as refused:
        await spawn(config_file="bad.json")
    assert reason in refused.value.message
    assert refused.value.message.startswith("vm: ")
    assert "\n" not in refused.value.message
    assert not (run_dir / "vm.sock").exists()


async def test_a_refused_request_carries_the_fault_message(spawn: Spawn) -> None:
    vmm = await spawn()
    with pytest.raises(VmmError, match=r"^vm: the VMM refused PATCH /vm: The requested operation is not supported"):
        await vmm.api.pause()
    with pytest.raises(VmmError, match=r"^vm: the VMM refused PUT /snapshot/load: .*No such file or directory"):
        await vmm.api.load_snapshot("gone", "File", "mem", resume=True)


async def test_a_request_to_a_vmm_that_has_died_says_how(spawn: Spawn) -> None:
    vmm = await spawn()
    await vmm.api.describe()
    os.kill(vmm.pid, signal.SIGKILL)
    with pytest.raises(VmmError, match=r"^vm: GET / was not answered: the VMM has ended: killed by SIGKILL$"):
        await vmm.api.describe()


async def test_a_killed_vmm_is_noticed_and_reaped(spawn: Spawn, run_dir: Path) -> None:
    vmm = await spawn()
    os.kill(vmm.pid, signal.SIGKILL)
    assert await exit_of(vmm) == Exit(None, signal.SIGKILL, "killed by SIGKILL")
    assert is_gone(vmm.pid)
    assert not (run_dir / "vm.sock").exists()
    await vmm.terminate()


async def test_vmms_are_spawned_concurrently(spawn: Spawn, run_dir: Path) -> None:
    names = [f"vm{number}" for number in range(4)]
    vmms = await asyncio.gather(*(spawn(name) for name in names))
    described = await asyncio.gather(*(vmm.api.describe() for vmm in vmms))
    assert [description.id for description in described] == names
    assert len({vmm.pid for vmm in vmms}) == len(names)


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not(spawn: Spawn, run_dir: Path) -> None:
    vmm = await spawn()
    with pytest.raises(VmmError, match=r"another VMM listens on .*vm\.sock: end it first"):
        await spawn()
    assert (await vmm.api.describe()).id == "vm"
    await vmm.disconnect()
    os.kill(vmm.pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitid, os.P_PID, vmm.pid, os.WEXITED)
    assert (run_dir / "vm.sock").is_socket()
    again = await spawn()
    assert (await again.api.describe()).id == "vm"


async def test_a_vmm_is_ended_when_what_is_done_meanwhile_fails(hypervisor: Hypervisor, run_dir: Path) -> None:
    pids: list[int] = []

    async def meanwhile(pid: int) -> None:
        pids.append(pid)
        raise RuntimeError("it cannot be served")

    with pytest.raises(RuntimeError, match="it cannot be served"):
        await Vmm.spawn(
            hypervisor,
            instance_id="vm",
            directory=run_dir,
            api_socket=run_dir / "vm.sock",
            config_file=None,
            meanwhile=meanwhile,
        )
    assert [is_gone(pid) for pid in pids] == [True]
    assert not (run_dir / "vm.sock").exists()


async def test_a_file_in_the_sockets_place_is_not_removed(spawn: Spawn, run_dir: Path) -> None:
    (run_dir / "vm.sock").write_text("precious")
    with pytest.raises(VmmError, match=r"vm\.sock is in the way of its API socket: remove it"):
        await spawn()
    assert (run_dir / "vm.sock").read_text() == "precious"


async def test_a_path_that_is_too_long_is_refused_before_anything_is_started(
    hypervisor: Hypervisor, run_dir: Path
) -> None:
    longest = run_dir / ("x" * (107 - len(str(run_dir)) - 1))
    vmm = await Vmm.spawn(hypervisor, instance_id="vm", directory=run_dir, api_socket=longest, config_file=None)
    await vmm.terminate()
    (run_dir / "console.log").unlink()
    with pytest.raises(BadRequestError, match="107 bytes, and this one has 108: choose a shorter --run-dir"):
        await Vmm.spawn(
            hypervisor,
            instance_id="vm",
            directory=run_dir,
            api_socket=longest.with_name(f"{longest.name}x"),
            config_file=None,
        )
    assert not (run_dir / "console.log").exists()


ANOTHER_SUPERVISOR = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from supervisor.vmm.driver import Vmm
    from supervisor.vmm.hypervisor import Hypervisor

    async def main(name, run_dir, *command):
        vmm = await Vmm.spawn(
            Hypervisor(name, command, "", ""), instance_id="vm", directory=Path(run_dir),
            api_socket=Path(run_dir, "vm.sock"), config_file=None,
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
        return await Vmm.adopt(instance_id="vm", directory=run_dir, api_socket=socket, pid=pid, start_time=start_time)

    vmm = await adopt(start_time)
    assert vmm is not None
    try:
        assert (await vmm.api.describe()).id == "vm"
    finally:
        await vmm.terminate()
    assert await exit_of(vmm) == Exit(None, None, "ended")
    assert not socket.exists()
    socket.touch()
    assert await adopt(start_time) is None
    assert not socket.exists()


async def test_a_pid_that_was_given_to_another_process_is_not_adopted(run_dir: Path) -> None:
    socket = run_dir / "vm.sock"
    adopted = await Vmm.adopt(instance_id="vm", directory=run_dir, api_socket=socket, pid=os.getpid(), start_time=1)
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
        adopted = Process.adopt(own, start_time_of(own), directory=run_dir)
        assert adopted is not None
        adopted.disconnect()


async def test_the_embedded_vmm_imports_nothing_from_its_working_directory(run_dir: Path) -> None:
    for name in ("supervisor.py", "json.py", "mmap.py", "sitecustomize.py"):
        (run_dir / name).write_text("raise SystemExit('imported from the working directory')")
    vmm = await Vmm.spawn(
        embedded_hypervisor(), instance_id="vm", directory=run_dir, api_socket=run_dir / "s", config_file=None
    )
    try:
        assert (await vmm.api.describe()).id == "vm"
    finally:
        await vmm.terminate()


def program(script: str) -> Hypervisor:
    """Return a VMM that is a shell script; its $1 is the path of the API's socket."""
    return Hypervisor("firecracker", ("/bin/sh", "-c", f"shift; {script}", "sh"), "1.12.1", "6.0.0")


async def spawn_program(hypervisor: Hypervisor, run_dir: Path) -> Vmm:
    return await Vmm.spawn(
        hypervisor, instance_id="vm", directory=run_dir, api_socket=run_dir / "s", config_file=None, name="web-1"
    )


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no luck >&2; exit 3", "web-1: the VMM has ended: exited with code 3: no luck"),
        ("exit 148", "web-1: the VMM has ended: exited with code 148 (a system call that seccomp forbids)"),
        (
            "echo '2026-01-31T12:00:00.0 [vm:main] broken' > vmm.log; kill -ABRT $$",
            "web-1: the VMM has ended: killed by SIGABRT: broken",
        ),
        ("exit 0", "web-1: the VMM has ended: exited with code 0"),
    ],
)
async def test_a_program_that_ends_instead_of_listening_is_quoted(run_dir: Path, script: str, reason: str) -> None:
    with pytest.raises(VmmError) as ended:
        await spawn_program(program(script), run_dir)
    assert ended.value.message == reason


async def test_a_program_that_is_not_there_is_named(run_dir: Path) -> None:
    with pytest.raises(VmmError, match=r"^/nowhere/firecracker cannot be started in .*: No such file or directory$"):
        await spawn_program(Hypervisor("firecracker", ("/nowhere/firecracker",), "", ""), run_dir)


async def test_a_run_directory_that_is_not_there_is_named(run_dir: Path) -> None:
    with pytest.raises(VmmError, match=r"^vm: embedded cannot be started: .*/gone: No such file or directory$"):
        await Vmm.spawn(
            embedded_hypervisor(),
            instance_id="vm",
            directory=run_dir,
            api_socket=run_dir / "gone" / "s",
            config_file=None,
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
