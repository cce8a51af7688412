"""A real supervisor as a process of its own, for tests that drive it over its socket."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from forktui.client.api import SupervisorClient
from supervisor.consoles.program import MODULE
from supervisor.models import CreateRequest, Event, Guest, HostSnapshot, Instance, InstanceStatistics, Reset, State
from supervisor.models import Statistics as StatisticsEvent
from supervisor.system.own_cgroups import group_of

PATIENCE = 30.0
"""Seconds that a test waits for a condition before it fails."""


@dataclass
class Home:
    """The data and run directories of one supervisor, and what is asked of it."""

    root: Path
    hypervisor: str = "embedded"
    firecracker: Path | None = None
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    user: int | None = None
    """Whose supervisor the launcher makes it, where that is another's."""
    """What begins the command line, as in a cgroup."""

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.root / "run"

    @property
    def socket(self) -> Path:
        """The supervisor's socket."""
        return self.run / "supervisor.sock"

    def command(self) -> tuple[str, ...]:
        """Return the supervisor's command line; `options` may say otherwise than the home does."""
        own = {"--data-dir": str(self.data), "--run-dir": str(self.run), "--hypervisor": self.hypervisor}
        if self.firecracker:
            own["--firecracker"] = str(self.firecracker)
        chosen = (word for option in own.items() if option[0] not in self.options for word in option)
        return (sys.executable, "-P", "-m", "supervisor", *chosen, *self.options)

    def processes(self) -> list[psutil.Process]:
        """Return every process that works in this home or was told of it."""
        return processes_of(self.root)

    def kill_everything(self) -> None:
        """End whatever a test left, so that a failed test does not disturb the next."""
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=PATIENCE)


@contextlib.contextmanager
def home_at(root: Path, hypervisor: str = "embedded", firecracker: Path | None = None) -> Iterator[Home]:
    """Yield a home in an existing directory, and end whatever is left in it when the context ends."""
    made = Home(root, hypervisor, firecracker)
    try:
        yield made
    finally:
        made.kill_everything()


def console_holder(home: Home) -> int | None:
    """Return the pid of a home's console holder, None where there is none."""
    for one in home.processes():
        # It may have ended since.
        with contextlib.suppress(psutil.Error):
            if any(MODULE in word for word in one.cmdline()):
                return one.pid
    return None


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return every other process alive that works in a directory or below it, or was told of one of them.

    Callers end what they are given: a directory that many others work in, as `Path("")` is, is a mistake.
    """
    assert directory.is_absolute() and len(directory.parts) > 2, f"{directory} is no directory of one test"
    below = re.compile(rf"(?<![\w.-]){re.escape(str(directory))}(?![\w.-])")
    # Of one in a jail neither its command line nor where it works says whose it is.
    groups = tuple(f"/{group_of(data_dir)}/" for data_dir in (directory, directory / "data"))
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            told = any(below.search(argument) for argument in process.cmdline())
            if process.pid != os.getpid() and (told or below.match(process.cwd()) or _is_jailed(process, groups)):
                found.append(process)
    return found


def _is_jailed(process: psutil.Process, groups: tuple[str, ...]) -> bool:
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{process.pid}/cgroup").read_text()
        return any(group in told for group in groups)
    return False


@dataclass
class RunningSupervisor:
    """A supervisor that serves, and a client of it."""

    home: Home
    process: asyncio.subprocess.Process
    client: SupervisorClient
    log: Path

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the supervisor with a signal and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE)


@contextlib.asynccontextmanager
async def supervisor(home: Home) -> AsyncIterator[RunningSupervisor]:
    """Run a supervisor in `home` while the context lasts; it is ended with SIGTERM and must exit 0."""
    log = home.root / "supervisor.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *home.launcher,
            *home.command(),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=os.environ | {"PYTHONFAULTHANDLER": "1"} | home.environment,
        )
    try:
        await _until_ready(process, home, log)
        async with SupervisorClient(home.socket, home.user) as client:
            running = RunningSupervisor(home, process, client, log)
            yield running
            expected = process.returncode is None
            code = await running.end()
            assert code == 0 or not expected, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _until_ready(process: asyncio.subprocess.Process, home: Home, log: Path) -> None:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
    except TimeoutError:
        # With faulthandler it writes where each thread is.
        process.send_signal(signal.SIGABRT)
        await process.wait()
        logged = await asyncio.to_thread(log.read_text)
        raise AssertionError(f"not ready after {PATIENCE:.0f} s:\n{logged[-20_000:]}") from None
    assert line.decode() == f"ready {home.socket}\n", await asyncio.to_thread(log.read_text)


async def until(condition: Callable[[HostSnapshot], bool], client: SupervisorClient) -> HostSnapshot:
    """Return the host as soon as it satisfies `condition`, which is looked at after every event."""
    known: HostSnapshot | None = None
    async with asyncio.timeout(PATIENCE):
        async for _, event in client.events():
            known = applied(known, event)
            if condition(known):
                return known
    raise AssertionError("the event stream ended before the condition held")


def applied(known: HostSnapshot | None, event: Event) -> HostSnapshot:
    """Return the host after one event."""
    if isinstance(event, Reset):
        return event.snapshot
    assert known is not None, "a stream begins with a reset"
    instances = {one.id: one for one in known.instances}
    templates = {one.id: one for one in known.templates}
    statistics = {one.id: one for one in known.statistics}
    match event.type:
        case "instance":
            instances[event.instance.id] = event.instance
        case "instance_deleted":
            instances.pop(event.id, None)
        case "template":
            templates[event.template.id] = event.template
        case "template_deleted":
            templates.pop(event.id, None)
        case "statistics":
            assert isinstance(event, StatisticsEvent)
            statistics |= {one.id: one for one in event.instances}
    return known.model_copy(
        update={
            "instances": tuple(instances.values()),
            "templates": tuple(templates.values()),
            "statistics": tuple(statistics.values()),
        }
    )


def find(host: HostSnapshot, name: str) -> Instance | None:
    """Return the instance of this name."""
    return next((one for one in host.instances if one.name == name), None)


def sample(host: HostSnapshot, name: str) -> InstanceStatistics:
    """Return the statistics of the instance of this name; zeros before its first sample."""
    instance = find(host, name)
    assert instance is not None, f"{name} is not there"
    return next((one for one in host.statistics if one.id == instance.id), InstanceStatistics(id=instance.id))


def guest(host: HostSnapshot, name: str) -> Guest:
    """Return what the guest of this name has printed."""
    return sample(host, name).guest or Guest()


async def walking_source(client: SupervisorClient, name: str = "source", *words: str) -> Instance:
    """Create a pagewalker and return it once it has walked its memory."""
    await client.create(CreateRequest(name=name, image="pagewalker", cmd=words))
    await until_walking(client, name)
    return await client.instance(name)


async def until_walking(client: SupervisorClient, *names: str) -> None:
    """Return when these guests have walked their memory and are Running, which is told after what they print."""

    def walking(host: HostSnapshot, name: str) -> bool:
        instance = find(host, name)
        return instance is not None and instance.state is State.RUNNING and guest(host, name).passes >= 1

    await until(lambda host: all(walking(host, name) for name in names), client)


async def gathered(*work: Awaitable[object]) -> list[object]:
    """Await all of `work` at once and return the results, exceptions among them."""
    return list(await asyncio.gather(*work, return_exceptions=True))
