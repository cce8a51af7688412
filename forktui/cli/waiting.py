"""Waiting, behind a command that makes instances, until they run and are ready."""

import asyncio
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Final

from forktui.cli.command import UsageError
from forktui.cli.printing import complain
from forktui.client.api import ApiError, SupervisorClient
from forktui.text.quantities import milliseconds, percentile, plural
from forktui.text.remedies import in_commands
from supervisor.models import Instance, State

WAIT_SECONDS: Final = 60.0
AT_ONCE: Final = 32
"""Waits under way at a time: each has a connection, of which a user has only so many."""


def wait_options(parser: ArgumentParser) -> None:
    """Take what an instance is ready by, whether to wait for it, and for how long."""
    parser.add_argument(
        "--readiness",
        metavar="WHAT",
        help="what the guest is ready by: console:PATTERN (a line, or part of one), tcp:ADDRESS:PORT or vsock:PORT",
    )
    parser.add_argument("--wait", action="store_true", help="wait until it runs, and is ready by its readiness")
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help=f"of the wait; {WAIT_SECONDS:.0f} if not given"
    )


def check_wait(options: Namespace) -> None:
    """Raise UsageError for a bound of a wait that was not asked for."""
    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout: nothing is waited for; give --wait as well")


async def waited(client: SupervisorClient, made: Sequence[Instance], options: Namespace) -> tuple[list[Instance], bool]:
    """Return the instances as they are after the wait, if there is one, and whether all are what was waited for."""
    if not options.wait:
        return [*made], True
    turns = asyncio.Semaphore(AT_ONCE)
    seconds = WAIT_SECONDS if options.timeout is None else options.timeout
    deadline = asyncio.get_running_loop().time() + seconds

    async def one(instance: Instance) -> tuple[Instance, bool]:
        async with turns:
            left = max(deadline - asyncio.get_running_loop().time(), 0.0)
            try:
                return await _wait(client, instance, left, seconds)
            except ApiError as error:
                complain(in_commands(error))
                return instance, False

    results = await asyncio.gather(*map(one, made))
    return [instance for instance, _ in results], all(ready for _, ready in results)


def summary(made: Sequence[Instance]) -> str:
    """Return how long forks took until they ran, and until they were ready."""
    told = [
        f"{name} p50 {milliseconds(p50)}, p95 {milliseconds(p95)}" for name, (p50, p95) in percentiles(made).items()
    ]
    return f"{plural(len(made), 'fork')}: {'; '.join(told)}" if told else ""


def percentiles(made: Sequence[Instance]) -> dict[str, tuple[float, float]]:
    """Return p50 and p95, in milliseconds, of how long instances took until they ran, and until they were ready."""
    ran = sorted(sum(phase.milliseconds for phase in one.phases) for one in made if one.phases)
    ready = sorted(one.ready_ms for one in made if one.ready_ms is not None)
    found = {"Running": ran, "ready": ready}
    return {name: (percentile(took, 0.5), percentile(took, 0.95)) for name, took in found.items() if took}


async def _wait(client: SupervisorClient, made: Instance, left: float, seconds: float) -> tuple[Instance, bool]:
    if made.state in (State.STANDBY, State.STOPPED):
        return made, True
    result = await client.wait(made.id, State.RUNNING, left, ready=True)
    now = await client.instance(made.id)
    if result.ready:
        return now, True
    if result.timed_out:
        by = f"waits for {now.readiness}" if now.readiness is not None else f"it is {now.state}"
        complain(f"{now.name}: not ready after {seconds:g} s: {by}")
    else:
        complain(f"{now.name}: it is {now.state}, and was not ready before: {now.exit_message or 'it ended'}")
    return now, False


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e6:
        raise ArgumentTypeError(f"{word!r} is no number of seconds")
    return seconds
