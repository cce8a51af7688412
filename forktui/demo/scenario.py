"""What the demo does on a supervisor: a source, a recording fork, a fan-out, and the proof that memory is right."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from forktui.client.api import SupervisorClient
from forktui.model.reducing import reduce
from forktui.model.world import World
from forktui.text.quantities import plural
from forktui.text.remedies import in_commands
from forktui.text.safe import safe_text
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest, Instance, State, Template

SOURCE: Final = "source"
WARM_UP: Final = "warm-up"
FORK_PREFIX: Final = "fork"
IMAGE: Final = "pagewalker"

STEP_TIMEOUT: Final = 60.0
"""Seconds for one step of one VM."""
FORK_TIMEOUT: Final = 2.0
"""Seconds more for each fork: each walks its memory eight times, and a host may have a single core."""


class ScenarioError(Exception):
    """A step of the demo failed or took too long; the message says which."""


class Watch:
    """The world of a supervisor as its event stream tells it, to be waited on."""

    def __init__(self) -> None:
        self.world = World()
        self._changed = asyncio.Condition()

    async def follow(self, client: SupervisorClient) -> None:
        """Take in the event stream until it fails, as it always ends, or until this is cancelled."""
        async for _, event in client.events():
            async with self._changed:
                self.world = reduce(self.world, event)
                self._changed.notify_all()

    async def until(self, condition: Callable[[World], bool], seconds: float, what: str) -> World:
        """Return the first world in which the condition holds; raises ScenarioError after `seconds`."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: condition(self.world))
        except TimeoutError as error:
            raise ScenarioError(f"{what}: not within {seconds:.0f} s") from error
        return self.world


@contextlib.asynccontextmanager
async def watching(client: SupervisorClient) -> AsyncIterator[Watch]:
    """Follow the supervisor's events while the context lasts; a stream that fails ends the context with its error."""
    watch = Watch()
    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(watch.follow(client))
            yield watch
            following.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def play(client: SupervisorClient, forks: int) -> World:
    """Play the demo with `forks` forks and return the world in which all have verified their memory, or one never will.

    Raises ScenarioError, or what the client raises.
    """
    async with watching(client) as watch:
        world = await watch.until(
            lambda world: world.supervisor is not None, STEP_TIMEOUT, "the supervisor's first event"
        )
        if world.instances:
            raise ScenarioError(
                f"the host has {plural(len(world.instances), 'instance')} already; name an empty directory for the demo"
            )
        source = await client.create(CreateRequest(name=SOURCE, image=IMAGE))
        await watch.until(lambda world: _settled(world, source), STEP_TIMEOUT, f"the first pass of {SOURCE}")
        _check(watch.world, source)
        await client.standby(source.id)
        await _record(client, watch, source)
        children = await _fan_out(client, source, forks)
        return await watch.until(
            lambda world: all(_settled(world, child) for child in children),
            STEP_TIMEOUT + forks * FORK_TIMEOUT,
            f"a first pass of {plural(forks, 'fork')}",
        )


async def _record(client: SupervisorClient, watch: Watch, source: Instance) -> None:
    request = ForkRequest(name=WARM_UP, share_memory=True, target_state="Running", prefetch="off", record="on")
    warm_up = await client.fork(source.id, request)

    def recorded(world: World) -> bool:
        template = template_of(world, source.id)
        return template is not None and template.recorded_pages > 0 and template.recording_fork is None

    await watch.until(
        lambda world: recorded(world) or _ended(world, warm_up), STEP_TIMEOUT, f"the pages that {WARM_UP} touches"
    )
    _check(watch.world, warm_up)


async def _fan_out(client: SupervisorClient, source: Instance, forks: int) -> list[Instance]:
    request = FanOutRequest(count=forks, name_prefix=FORK_PREFIX, target_state="Running", record="off")
    result = await client.fan_out(source.id, request)
    failed = [child for child in result.children if child.error is not None]
    if failed and failed[0].error is not None:
        first = f"{failed[0].name}: {in_commands(failed[0].error)}"
        raise ScenarioError(safe_text(f"{len(failed)} of {plural(forks, 'fork')} failed; the first is {first}"))
    return [child.instance for child in result.children if child.instance is not None]


def template_of(world: World, instance_id: str) -> Template | None:
    """Return the template of an instance, where it is one."""
    instance = world.instances.get(instance_id)
    return None if instance is None else world.template_of(instance)


def _ended(world: World, instance: Instance) -> bool:
    """Return whether the instance's VMM has ended; events may be behind, so states before Running do not count."""
    return world.instances.get(instance.id, instance).state in (State.SHUTDOWN, State.STOPPED, State.UNKNOWN)


def _settled(world: World, instance: Instance) -> bool:
    """Return whether the guest is known to be ready and has verified its memory once, or never will."""
    if _ended(world, instance):
        return True
    guest = world.statistics_of(instance.id).guest
    ready = world.instances.get(instance.id, instance).state is State.RUNNING
    return ready and guest is not None and (guest.passes > 0 or guest.corrupt is not None)


def _check(world: World, instance: Instance) -> None:
    """Raise ScenarioError where the instance cannot be used any further."""
    now = world.instances.get(instance.id, instance)
    guest = world.statistics_of(instance.id).guest
    if _ended(world, instance):
        raise ScenarioError(f"{now.name} is {now.state}: {now.state_error or now.exit_message or 'its VMM has ended'}")
    if guest is not None and guest.corrupt is not None:
        raise ScenarioError(f"{now.name} found its memory CORRUPT at {guest.corrupt}")
