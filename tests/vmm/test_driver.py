"""The driver, against a real Firecracker and the embedded VMM."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from supervisor.errors import BadRequestError, VmmError, VmmSilentError
from supervisor.images.boot_image import load_image, prepare
from supervisor.vmm import driver
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, embedded_hypervisor
from supervisor.vmm.inotify import until_listening
from supervisor.vmm.process import Exit, Process
from supervisor.vmm.quarters import InDirectory
from tests.harness.plain_outputs import PLAIN
from tests.harness.vmm_processes import exit_of, is_gone
from tests.harness.waiting import until_console_says

MEMORY_MIB = 40
Spawn = Callable[..., Awaitable[Vmm]]


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
            quarters=InDirectory(directory, run_dir / f"{name}.sock"),
            config_file=config_file,
            consoles=PLAIN,
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
        vmm = await spawn(
            config_file="vm.json",
        )
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
    await spawn(
        config_file="vm.json",
    )
    await until_console_says(console, "done")
    assert console.read_text().startswith("of an earlier run\nready\n")


async def test_a_snapshot_is_taken_and_loaded_by_relative_paths(spawn: Spawn, run_dir: Path) -> None:
    place_pagewalker(run_dir / "vm", "passes=1")
    vmm = await spawn(
        config_file="vm.json",
    )
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
        (
            '{"drives": [{"is_root_device": true}]}',
            "bad.json is not a VM's configuration: drives: each entry has to be",
        ),
        ('{"drives": [{"drive_id": "../vm"}]}', "drives: each entry has to be an object whose drive_id has letters"),
        ('{"drives": {"drive_id": "root"}}', "bad.json is not a VM's configuration: drives: it has to be a list"),
        (
            '{"boot-source": {"kernel_image_path": "kernel", "boot_args": "\\u0000"}}',
            "no kernel command line holds a NUL",
        ),
        ('"boot-source"', "bad.json is not a VM's configuration: it has to be an object"),
        ("{", "bad.json is not a VM's configuration: Expecting property name"),
        ("[" * 100_000, "bad.json is not a VM's configuration: "),
    ],
)
async def test_a_vm_that_cannot_boot_says_why_and_is_gone(
    spawn: Spawn, run_dir: Path, config: str, reason: str
) -> None:
    place_pagewalker(run_dir / "vm")
    (run_dir / "vm" / "bad.json").write_text(config)
    with pytest.raises(BadRequestError) as refused:
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
            quarters=InDirectory(run_dir, run_dir / "vm.sock"),
            config_file=None,
            consoles=PLAIN,
            meanwhile=meanwhile,
        )
    assert [is_gone(pid) for pid in pids] == [True]
    assert not (run_dir / "vm.sock").exists()


async def test_a_vmm_is_gone_when_a_spawn_that_is_cancelled_a_second_time_fails(
    hypervisor: Hypervisor, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a client's cancellation, and by the end of the page server meanwhile."""
    spawned: list[int] = []
    started, ending = asyncio.Event(), asyncio.Event()
    terminate = Process.terminate

    async def meanwhile(pid: int) -> None:
        spawned.append(pid)
        started.set()
        await asyncio.Event().wait()

    async def terminated(process: Process) -> None:
        ending.set()
        await terminate(process)

    monkeypatch.setattr(Process, "terminate", terminated)
    spawning = asyncio.create_task(
        Vmm.spawn(
            hypervisor,
            instance_id="vm",
            quarters=InDirectory(run_dir, run_dir / "vm.sock"),
            config_file=None,
            consoles=PLAIN,
            meanwhile=meanwhile,
        )
    )
    for event in (started, ending):
        await event.wait()
        spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning
    assert [is_gone(pid) for pid in spawned] == [True]
    assert not (run_dir / "vm.sock").exists()


async def test_without_its_socket_a_vmm_is_reached_over_an_open_connection_though_it_is_busy_or_hangs(
    spawn: Spawn, run_dir: Path
) -> None:
    vmm = await spawn()
    await vmm.api.describe()
    (run_dir / "vm.sock").unlink()
    assert not vmm.socket_in_place
    assert vmm.reachable
    os.kill(vmm.pid, signal.SIGSTOP)
    asked = asyncio.create_task(vmm.api.describe())
    await asyncio.sleep(0)
    assert vmm.reachable
    os.kill(vmm.pid, signal.SIGCONT)
    assert (await asked).id == "vm"
    assert vmm.reachable
    os.kill(vmm.pid, signal.SIGSTOP)
    with pytest.raises(VmmSilentError):
        await vmm.api.resume(seconds=0.1)
    assert vmm.reachable, "the request goes on over its connection, for which there is no other"


async def test_without_its_socket_a_vmm_that_was_never_asked_is_not_reached(spawn: Spawn, run_dir: Path) -> None:
    vmm = await spawn()
    assert vmm.reachable
    (run_dir / "vm.sock").unlink()
    assert not vmm.reachable


@contextlib.asynccontextmanager
async def spawned_until_it_listens(
    hypervisor: Hypervisor, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Path]:
    """Give the socket of a VMM that listens, and whose spawn is cancelled before that is noted."""
    listens = asyncio.Event()

    async def until_listening_and_for_ever(path: Path, created: asyncio.Event, look: Callable[[Path], int]) -> int:
        pid = await until_listening(path, created, look)
        listens.set()
        await asyncio.Event().wait()
        return pid

    monkeypatch.setattr(driver, "until_listening", until_listening_and_for_ever)
    path = run_dir / "vm.sock"
    spawning = asyncio.create_task(
        Vmm.spawn(
            hypervisor,
            instance_id="vm",
            quarters=InDirectory(run_dir, path),
            config_file=None,
            consoles=PLAIN,
        )
    )
    await listens.wait()
    yield path
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning


async def test_one_that_is_cancelled_before_its_socket_is_noted_leaves_none(
    hypervisor: Hypervisor, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spawned_until_it_listens(hypervisor, run_dir, monkeypatch) as path:
        assert path.is_socket()
    assert not path.exists()


async def test_what_somebody_else_put_in_its_place_meanwhile_stays(
    hypervisor: Hypervisor, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spawned_until_it_listens(hypervisor, run_dir, monkeypatch) as path:
        path.unlink()
        path.write_text("precious")
    assert path.read_text() == "precious"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        async with spawned_until_it_listens(hypervisor, run_dir, monkeypatch):
            path.unlink()
            listener.bind(str(path))
            listener.listen()
        assert path.is_socket()


async def test_a_file_in_the_sockets_place_is_not_removed(spawn: Spawn, run_dir: Path) -> None:
    (run_dir / "vm.sock").write_text("precious")
    with pytest.raises(VmmError, match=r"vm\.sock is in the way of its API socket: remove it"):
        await spawn()
    assert (run_dir / "vm.sock").read_text() == "precious"


async def test_a_path_that_is_too_long_is_refused_before_anything_is_started(
    hypervisor: Hypervisor, run_dir: Path
) -> None:
    longest = run_dir / ("x" * (107 - len(str(run_dir)) - 1))
    vmm = await Vmm.spawn(
        hypervisor,
        instance_id="vm",
        quarters=InDirectory(run_dir, longest),
        config_file=None,
        consoles=PLAIN,
    )
    await vmm.terminate()
    (run_dir / "console.log").unlink()
    with pytest.raises(BadRequestError, match="107 bytes, and this one has 108: choose a shorter --run-dir"):
        await Vmm.spawn(
            hypervisor,
            instance_id="vm",
            quarters=InDirectory(run_dir, longest.with_name(f"{longest.name}x")),
            config_file=None,
            consoles=PLAIN,
        )
    assert not (run_dir / "console.log").exists()


async def test_the_embedded_vmm_imports_nothing_from_its_working_directory(run_dir: Path) -> None:
    for name in ("supervisor.py", "json.py", "mmap.py", "sitecustomize.py"):
        (run_dir / name).write_text("raise SystemExit('imported from the working directory')")
    vmm = await Vmm.spawn(
        embedded_hypervisor(),
        instance_id="vm",
        quarters=InDirectory(run_dir, run_dir / "s"),
        config_file=None,
        consoles=PLAIN,
    )
    try:
        assert (await vmm.api.describe()).id == "vm"
    finally:
        await vmm.terminate()
