"""`forktui demo`: a temporary host of one's own with a fan-out on it, watched or reported; nothing of it is left."""

import asyncio
import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.private_supervisor import private_supervisor
from forktui.demo.interrupts import ignore_interrupts, interruptible_once, run_interruptible
from forktui.demo.report import judge, table
from forktui.demo.scenario import SOURCE, ScenarioError, play
from forktui.model.world import World
from forktui.text.quantities import plural
from forktui.text.remedies import in_commands
from forktui.tui.terminal import run
from supervisor.models import Instance, State
from supervisor.settings import SOCKET_NAME, Settings

FAILURES: Final = (ApiError, SupervisorUnreachableError, ScenarioError)
CLEAR_TIMEOUT: Final = 60.0
"""Seconds for the supervisor to end what the demo started, before that is ended without it."""
CLEAR_CONCURRENCY: Final = 8
INSTANCES: Final = "instances"
"""Where in a data directory a supervisor has its instances."""


def run_demo(settings: Settings, *, kept: bool) -> int:
    """Play the demo in the dashboard, or headless; return 0 where it did what it should, else 1.

    With `kept` it is in `settings.data_dir`, where its instances are left, stopped.
    Raises what the supervisor's start and the scenario raise, and KeyboardInterrupt, each after everything is cleared.
    """
    with _told_in_json(settings):
        if kept:
            _check_empty(settings.data_dir)
    with interruptible_once(), _home(settings, kept) as home, private_supervisor(home):
        try:
            return _report(home) if home.headless else _show(home)
        finally:
            ignore_interrupts()
            with contextlib.suppress(ApiError, SupervisorUnreachableError, TimeoutError):
                asyncio.run(_clear(home, kept))


def _check_empty(data_dir: Path) -> None:
    """Refuse a data directory with instances, whole or half made: a supervisor would go on with them."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if there := len(list((data_dir / INSTANCES).iterdir())):
            raise ScenarioError(
                f"{data_dir} has {plural(there, 'instance')} already; name an empty directory for the demo"
            )


@contextlib.contextmanager
def _home(settings: Settings, kept: bool) -> Iterator[Settings]:
    """Return the settings of a supervisor in a temporary directory, which goes with the context.

    Of a supervisor that is configured here it takes the programs and the numbers, and no place. The directory is in
    /tmp whatever TMPDIR says: sockets are in it, and sun_path is short.
    """
    folder = Path(tempfile.mkdtemp(prefix="forktui-", dir="/tmp"))
    run_dir = folder / "run"
    places = {"run_dir": run_dir, "socket": run_dir / SOCKET_NAME, "log_file": folder / "log"}
    if not kept:
        places["data_dir"] = folder / "data"
    try:
        folder.chmod(0o700)
        yield settings.model_copy(update=places)
    finally:
        _kill_leftovers(run_dir)
        shutil.rmtree(folder)


def _kill_leftovers(run_dir: Path) -> None:
    """End VMMs and page servers that no supervisor ended, known by the sockets in their command lines."""
    left = [process for process in psutil.process_iter(["cmdline"]) if _has_socket_in(run_dir, process)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=CLEAR_TIMEOUT)


def _has_socket_in(run_dir: Path, process: psutil.Process) -> bool:
    words = process.info["cmdline"] or ()
    return any(re.search(rf"{re.escape(str(run_dir))}/(?!{re.escape(SOCKET_NAME)})", word) for word in words)


async def _clear(home: Settings, kept: bool) -> None:
    """End all instances: delete them, children first, or only stop them where the home is kept."""
    async with asyncio.timeout(CLEAR_TIMEOUT), SupervisorClient(home.socket_path) as client:
        instances = await client.instances()
        if kept:
            running = [instance for instance in instances if instance.state in (State.RUNNING, State.PAUSED)]
            await _each(running, client.stop)
            return
        for generation in reversed(_generations(instances)):
            await _each(generation, client.delete)


async def _each(instances: list[Instance], verb: Callable[[str], Awaitable[object]]) -> None:
    """Do something to each instance, some at a time; what one refuses does not keep the others from it."""
    turns = asyncio.Semaphore(CLEAR_CONCURRENCY)

    async def one(instance: Instance) -> None:
        async with turns:
            await verb(instance.id)

    await asyncio.gather(*map(one, instances), return_exceptions=True)


def _generations(instances: list[Instance]) -> list[list[Instance]]:
    """Return the instances by their distance from their root: those without a source first."""
    known = {instance.id: instance for instance in instances}
    generations: list[list[Instance]] = []
    for instance in instances:
        depth, source = 0, known.get(instance.source_id or "")
        while source is not None:
            depth, source = depth + 1, known.get(source.source_id or "")
        generations.extend([] for _ in range(depth + 1 - len(generations)))
        generations[depth].append(instance)
    return generations


def _report(home: Settings) -> int:
    with _told_in_json(home):
        report = judge(run_interruptible(_play(home)), home.forks)
    print(json.dumps(report.to_json(), indent=2) if home.json_output else table(report))
    return 0 if report.ok else 1


@contextlib.contextmanager
def _told_in_json(settings: Settings) -> Iterator[None]:
    """Print a failure of the body as a report too, where a report in JSON is what was asked for."""
    try:
        yield
    except FAILURES as error:
        if settings.headless and settings.json_output:
            print(json.dumps({"ok": False, "reasons": [_reason(error)]}))
        raise


def _show(home: Settings) -> int:
    """Show the dashboard while the scenario plays; its failure is shown there, and is this one's after that."""
    failures: list[str] = []

    async def companion() -> str | None:
        try:
            failures.extend(judge(await _play(home), home.forks).reasons)
        except FAILURES as error:
            failures.append(_reason(error))
        return f"the demo failed: {'; '.join(failures)}" if failures else None

    code = run(home.socket_path, on_mount_focus=SOURCE, mouse=not home.no_mouse, title="demo", companion=companion)
    if failures:
        raise ScenarioError("; ".join(failures))
    print("the demo's host is being ended, with all VMs on it", flush=True)
    return code


def _reason(error: ApiError | SupervisorUnreachableError | ScenarioError) -> str:
    return str(error) if isinstance(error, ScenarioError) else in_commands(error)


async def _play(home: Settings) -> World:
    async with SupervisorClient(home.socket_path) as client:
        return await play(client, home.forks)
