"""How an action on instances becomes requests, and what came of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from forktui.client import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.forest import rows
from forktui.quantities import milliseconds, names
from forktui.text import safe_text
from forktui.world import World
from supervisor.models import FanOutRequest, ForkRequest, Instance, State

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

    return await _each(world, instance_ids, "forked:", one)


async def fan_out(client: SupervisorClient, world: World, instance_id: str, count: int) -> Outcome:
    """`count` running share_memory forks of one Standby instance."""
    try:
        result = await client.fan_out(
            instance_id, FanOutRequest(count=count, share_memory=True, target_state="Running")
        )
    except (ApiError, SupervisorUnreachableError) as error:
        return Outcome("", (safe_text(str(error)),))
    made = [safe_text(child.name) for child in result.children if child.error is None]
    failed = [safe_text(f"{child.name}: {child.error.message}") for child in result.children if child.error]
    done = f"{len(made)} forks in {milliseconds(result.milliseconds)}: {names(made)}" if made else ""
    more = [f"and {len(failed) - 1} more of {count} failed"] if len(failed) > 1 else []
    return Outcome(done, tuple(failed[:1] + more))


async def delete(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Delete the instances, forks before their sources: a source is locked until its forks are gone."""

    async def one(instance: Instance) -> str:
        await client.delete(instance.id)
        return instance.name

    depth = {row.id: row.depth for row in rows(world)}
    outcome = Outcome("")
    for level in sorted({depth[i] for i in instance_ids if i in depth}, reverse=True):
        wave = await _each(world, [i for i in instance_ids if depth.get(i) == level], "", one)
        outcome = Outcome(", ".join(filter(None, [outcome.done, wave.done])), outcome.failures + wave.failures)
    return Outcome(f"deleted: {outcome.done}" if outcome.done else "", outcome.failures)


async def delete_tree(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Delete each with all that is below it; the supervisor sees to the order."""

    async def one(instance: Instance) -> str:
        await client.delete(instance.id, cascade=True)
        return f"{instance.name} and all below it"

    return await _each(world, instance_ids, "deleted:", one)


async def standby(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Put each to standby."""

    async def one(instance: Instance) -> str:
        return (await client.standby(instance.id)).name

    return await _each(world, instance_ids, "in Standby:", one)


async def restore(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Restore each from its snapshot, or start it where it is Stopped."""

    async def one(instance: Instance) -> str:
        verb = client.start if instance.state is State.STOPPED else client.restore
        return (await verb(instance.id)).name

    return await _each(world, instance_ids, "running:", one)


async def detach(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Give each all of its memory, and release its source."""

    async def one(instance: Instance) -> str:
        return (await client.detach(instance.id)).name

    return await _each(world, instance_ids, "detached:", one)


async def stop(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> Outcome:
    """Stop each."""

    async def one(instance: Instance) -> str:
        return (await client.stop(instance.id)).name

    return await _each(world, instance_ids, "stopped:", one)


Verb = Callable[[SupervisorClient, World, Sequence[str]], Awaitable[Outcome]]

ON_EACH: dict[str, Verb] = {
    "fork": fork,
    "delete": delete,
    "delete_tree": delete_tree,
    "standby": standby,
    "restore": restore,
    "detach": detach,
    "stop": stop,
}
"""What is done in the same way to every selected instance, by the action's id; a dialog asks for `delete_tree`."""


async def _each(
    world: World, instance_ids: Sequence[str], what: str, request: Callable[[Instance], Awaitable[str]]
) -> Outcome:
    turns = asyncio.Semaphore(CONCURRENCY)

    async def attempt(instance: Instance) -> tuple[str, str]:
        async with turns:
            try:
                return safe_text(await request(instance)), ""
            except (ApiError, SupervisorUnreachableError) as error:
                return "", safe_text(str(error))

    instances = [world.instances[i] for i in instance_ids if i in world.instances]
    results = await asyncio.gather(*map(attempt, instances))
    done = [name for name, _ in results if name]
    failures = tuple(dict.fromkeys(failure for _, failure in results if failure))
    return Outcome(f"{what} {names(done, shown=3)}".strip() if done else "", failures)
