"""A supervisor of a benchmark's own, on its socket, and what it is asked for."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.bench import PATIENCE, Bench
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.private_supervisor import private_supervisor
from supervisor.models import CreateRequest, FanOutRequest, FanOutResult, Instance, JailMode, State
from supervisor.settings import Settings
from supervisor.vmm.hypervisor import Hypervisor

CONCURRENCY: Final = FanOutRequest(count=1).concurrency
"""Forks that a fan-out makes at a time."""


@contextlib.asynccontextmanager
async def supervised(
    bench: Bench, hypervisor: Hypervisor, *, jail: JailMode = "off", **options: Any
) -> AsyncIterator[tuple[SupervisorClient, Settings]]:
    """Run a supervisor with these options; it is gone with the context, and all that it owned."""
    home = bench.directory(f"{hypervisor.name}-{jail}-home")
    settings = Settings(
        data_dir=home / "data",
        run_dir=home / "run",
        hypervisor=hypervisor.name,
        firecracker=Path(hypervisor.command[0]) if hypervisor.name == "firecracker" else None,
        log_file=home / "log",
        jail=jail,
        **options,
    )
    with _gone_after(home), private_supervisor(settings):
        async with SupervisorClient(settings.socket_path) as client:
            try:
                yield client, settings
            except BaseException:
                # A fan-out that was interrupted goes on in the supervisor: what is left is ended with the home.
                with contextlib.suppress(ApiError, SupervisorUnreachableError):
                    await delete_all(client)
                raise
            await delete_all(client)


async def standby_source(bench: Bench, client: SupervisorClient, name: str, last_line: str, *words: str) -> None:
    """Make a Standby pagewalker, with these words on its command line, that has printed `last_line`."""
    size = f"{bench.sizes.memory_mib}MB"
    await client.create(CreateRequest(name=name, image="pagewalker", size=size, cmd=words))
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.follow_log(name)) as lines:
        while await anext(lines) != last_line:
            continue
    await client.wait(name, State.RUNNING, PATIENCE)
    await client.standby(name)


def children_of(result: FanOutResult) -> list[Instance]:
    """Return the forks of a fan-out; RuntimeError where one could not be made."""
    for child in result.children:
        if child.error is not None:
            raise RuntimeError(f"{child.name} could not be made: {child.error.message}")
    return [child.instance for child in result.children if child.instance is not None]


async def delete_all(client: SupervisorClient) -> None:
    """Delete everything that the supervisor owns, sources after their forks."""
    instances = await client.instances()
    await delete(client, (instance for instance in instances if instance.source_id is not None))
    await delete(client, (instance for instance in instances if instance.source_id is None))


async def delete(client: SupervisorClient, instances: Iterable[Instance]) -> None:
    """Delete instances that hold no lock on each other; one that is gone already is none the worse."""
    places = asyncio.Semaphore(CONCURRENCY)

    async def one(instance: Instance) -> None:
        async with places:
            try:
                await client.delete(instance.id)
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise

    await asyncio.gather(*map(one, instances))


@contextlib.contextmanager
def _gone_after(home: Path) -> Iterator[None]:
    """Remove a home with the context, and end what a supervisor that failed has left there."""
    try:
        yield
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(home) in argument for argument in process.cmdline()):
                    process.kill()
                    process.wait(PATIENCE)
        shutil.rmtree(home)
