"""How an action on instances becomes requests, and what came of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.model.forest import rows
from forktui.model.world import World
from forktui.text.quantities import ended, milliseconds, names, plural
from forktui.text.remedies import in_dashboard
from forktui.text.safe import safe_text
from supervisor.models import FanOutRequest, ForkRequest, Instance, State

TOLD_FAILURES = 3
CONCURRENCY = 8
"""How many requests of one action are under way at a time."""


@dataclass(frozen=True)
class Outcome:
    """What an action did: one line about what was done, and one for each refusal or failure."""

    done: str
    failures: tuple[str, ...] = ()


async def fork(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """One running fork of each: shared memory of a Standby source, a copy of a Running one."""

    async def one(instance: Instance) -> str:
        running = instance.state is State.RUNNING
        request = ForkRequest(share_memory=not running, from_running=running, target_state="Running")
        return (await client.fork(instance.id, request)).name

    return _outcome("forked:", *await _each(world, instance_ids, one))


async def fan_out(client: SupervisorClient, world: World, instance_id: str, count: int) -> Outcome:
    """`count` running share_memory forks of one Standby instance."""
    try:
        result = await client.fan_out(
            instance_id, FanOutRequest(count=count, share_memory=True, target_state="Running")
        )
    except (ApiError, SupervisorUnreachableError) as error:
        return Outcome("", (in_dashboard(error),))
    made = [safe_text(child.name) for child in result.children if child.error is None]
    failed = [f"{safe_text(child.name)}: {in_dashboard(child.error)}" for child in result.children if child.error]
    done = f"{plural(len(made), 'fork')} in {milliseconds(result.milliseconds)}: {names(made)}" if made else ""
    return Outcome(done, _first(failed))


async def delete(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Delete the instances, forks before their sources: a source is locked until its forks are gone."""

    async def one(instance: Instance) -> str:
        await client.delete(instance.id)
        return instance.name

    depth = {row.id: row.depth for row in rows(world)}
    done: list[str] = []
    failures: list[str] = []
    for level in sorted({depth[i] for i in instance_ids if i in depth}, reverse=True):
        names_done, why_not = await _each(world, [i for i in instance_ids if depth.get(i) == level], one)
        done += names_done
        failures += why_not
    return _outcome("deleted:", done, failures)


async def delete_tree(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Delete each with all that is below it; the supervisor sees to the order."""

    async def one(instance: Instance) -> str:
        await client.delete(instance.id, cascade=True)
        return f"{instance.name} and all below it"

    return _outcome("deleted:", *await _each(world, instance_ids, one))


async def standby(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Put each to standby."""

    async def one(instance: Instance) -> str:
        return (await client.standby(instance.id)).name

    return _outcome("in Standby:", *await _each(world, instance_ids, one))


async def checkpoint(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """One checkpoint of each, with how long its source was paused."""

    async def one(instance: Instance) -> str:
        made = await client.checkpoint(instance.id)
        paused = (f" (paused {milliseconds(phase.milliseconds)})" for phase in made.phases if phase.name == "paused")
        return made.name + next(paused, "")

    return _outcome("checkpoints:", *await _each(world, instance_ids, one))


async def restore(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Restore each from its snapshot, or start it where it is Stopped."""

    async def one(instance: Instance) -> str:
        verb = client.start if instance.state is State.STOPPED else client.restore
        return (await verb(instance.id)).name

    return _outcome("running:", *await _each(world, instance_ids, one))


async def detach(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Give each all of its memory, and release its source."""

    async def one(instance: Instance) -> str:
        return (await client.detach(instance.id)).name

    return _outcome("detached:", *await _each(world, instance_ids, one))


async def stop(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Stop each."""

    async def one(instance: Instance) -> str:
        return (await client.stop(instance.id)).name

    return _outcome("stopped:", *await _each(world, instance_ids, one))


async def cancel(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """End what each is shown to be at; what was made by then stays."""

    async def one(instance: Instance) -> str:
        return ended(await client.cancel(instance.operation.id)) if instance.operation is not None else ""

    return _outcome("", *await _each(world, instance_ids, one))


Verb = Callable[[SupervisorClient, World, Sequence[str]], Awaitable[Outcome]]

ON_EACH: dict[str, Verb] = {
    "fork": fork,
    "checkpoint": checkpoint,
    "delete": delete,
    "delete_tree": delete_tree,
    "standby": standby,
    "restore": restore,
    "detach": detach,
    "stop": stop,
    "cancel": cancel,
}
"""The actions that do the same to every selected instance, by the action's id; a dialog asks for `delete_tree`."""


async def _each(
    world: World, instance_ids: Sequence[str], request: Callable[[Instance], Awaitable[str]]
) -> tuple[list[str], list[str]]:
    """The names that the requests gave, and why the others failed."""
    turns = asyncio.Semaphore(CONCURRENCY)

    async def attempt(instance: Instance) -> tuple[str, str]:
        async with turns:
            try:
                return safe_text(await request(instance)), ""
            except (ApiError, SupervisorUnreachableError) as error:
                return "", in_dashboard(error)

    instances = [world.instances[i] for i in instance_ids if i in world.instances]
    results = await asyncio.gather(*map(attempt, instances))
    return [name for name, _ in results if name], [failure for _, failure in results if failure]


def _outcome(what: str, done: Sequence[str], failures: Sequence[str]) -> Outcome:
    told = f"{what} {names(list(done), shown=3)}".lstrip() if done else ""
    return Outcome(told, _first(list(dict.fromkeys(failures))))


def _first(failures: Sequence[str]) -> tuple[str, ...]:
    """As many failures as an operator reads, and how many more there are."""
    more = len(failures) - TOLD_FAILURES
    return (*failures[:TOLD_FAILURES], *([f"and {more} more failed"] if more > 0 else []))
