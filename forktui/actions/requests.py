"""How a verb on several instances becomes requests, and what came of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from forktui.actions.action import Outcome
from forktui.client.api import ApiError, SupervisorUnreachableError
from forktui.model.world import World
from forktui.text.quantities import names
from forktui.text.remedies import in_dashboard
from forktui.text.safe import safe_text
from supervisor.models import Instance

TOLD_FAILURES = 3
CONCURRENCY = 8
"""How many requests of one action are under way at a time."""

T = TypeVar("T")
Ask = Callable[[Instance], Awaitable[str]]
"""Asks for something of one instance; returns what to call what came of it."""


async def answers(instances: Sequence[Instance], ask: Callable[[Instance], Awaitable[T]]) -> list[T]:
    """What is answered for each, in their order; raises what any raises."""
    turns = asyncio.Semaphore(CONCURRENCY)

    async def in_turn(instance: Instance) -> T:
        async with turns:
            return await ask(instance)

    return await asyncio.gather(*map(in_turn, instances))


async def done_to_each(what: str, world: World, instance_ids: Sequence[str], ask: Ask) -> Outcome:
    """Ask for each, and tell `what` came of them."""
    return outcome(what, *await each(world, instance_ids, ask))


async def each(world: World, instance_ids: Sequence[str], ask: Ask) -> tuple[list[str], list[str]]:
    """The names that the requests gave, and why the others failed."""

    async def attempt(instance: Instance) -> tuple[str, str]:
        try:
            return safe_text(await ask(instance)), ""
        except (ApiError, SupervisorUnreachableError) as error:
            return "", in_dashboard(error)

    results = await answers([world.instances[i] for i in instance_ids if i in world.instances], attempt)
    return [name for name, _ in results if name], [failure for _, failure in results if failure]


def outcome(what: str, done: Sequence[str], failures: Sequence[str]) -> Outcome:
    """What is told of those that were done and of those that failed."""
    told = f"{what} {names(list(done), shown=3)}".lstrip() if done else ""
    return Outcome(told, first(list(dict.fromkeys(failures))))


def first(failures: Sequence[str]) -> tuple[str, ...]:
    """As many failures as an operator reads, and how many more there are."""
    more = len(failures) - TOLD_FAILURES
    return (*failures[:TOLD_FAILURES], *([f"and {more} more failed"] if more > 0 else []))
