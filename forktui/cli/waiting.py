"""Waiting until instances run and are ready: behind a command that makes them, or as one of its own."""

import asyncio
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Final

from forktui.cli.command import Command, UsageError, references
from forktui.cli.printing import complain, instances_of, show, show_each
from forktui.client.api import ApiError, SupervisorClient
from forktui.text.quantities import milliseconds, percentile, plural
from forktui.text.remedies import in_commands
from supervisor.models import Instance, State
from supervisor.settings import Settings

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
    _timeout_option(parser)


def _timeout_option(parser: ArgumentParser) -> None:
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
    turns, wait = asyncio.Semaphore(AT_ONCE), _Wait(client, _seconds_of(options))

    async def one(instance: Instance) -> tuple[Instance, bool]:
        async with turns:
            try:
                # What was made to rest is what it is to be.
                rests = instance.state in (State.STANDBY, State.STOPPED)
                return (instance, True) if rests else await wait.until_ready(instance.id)
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


class _Wait:
    """A wait for several, of so many seconds in all."""

    def __init__(self, client: SupervisorClient, seconds: float) -> None:
        self._client = client
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def until_ready(self, instance_id: str, readiness: str | None = None) -> tuple[Instance, bool]:
        """Return the instance as it is then, and whether it is ready by its own readiness, or by this one."""
        result = await self._client.wait(instance_id, State.RUNNING, self._left, ready=True, readiness=readiness)
        now = await self._client.instance(instance_id)
        if not result.ready and result.timed_out:
            by = readiness or now.readiness
            complain(f"{self._late(now, 'ready')}: {f'it is {now.state}' if by is None else f'waits for {by}'}")
        elif not result.ready:
            why = f"was not ready before: {now.exit_message}" if now.exit_message else "its guest does not run"
            complain(f"{now.name}: it is {now.state}, and {why}")
        return now, result.ready

    async def until_in(self, instance_id: str, state: State) -> tuple[Instance, bool]:
        """Return the instance as it is then, and whether it has come to be in this state."""
        result = await self._client.wait(instance_id, state, self._left)
        now = await self._client.instance(instance_id)
        if result.state is not state:
            complain(f"{self._late(now, state.value)}: it is {now.state}")
        return now, result.state is state

    @property
    def _left(self) -> float:
        return max(self._deadline - asyncio.get_running_loop().time(), 0.0)

    def _late(self, instance: Instance, what: str) -> str:
        return f"{instance.name}: not {what} after {self._seconds:g} s"


def _wait_arguments(parser: ArgumentParser) -> None:
    references(parser)
    parser.add_argument(
        "--state",
        choices=[one.value for one in State],
        default=State.RUNNING.value,
        help="to be waited for; Running if not given, and then until it is ready too",
        metavar="STATE",
    )
    parser.add_argument("--readiness", metavar="WHAT", help="wait for this one, whatever its own is")
    _timeout_option(parser)


async def _wait(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    state = State(options.state)
    if options.readiness is not None and state is not State.RUNNING:
        raise UsageError("--readiness: a guest can be ready where its VM is Running only; leave --state out")
    wait, right = _Wait(client, _seconds_of(options)), True

    async def one(instance_id: str) -> Instance:
        nonlocal right
        if state is State.RUNNING:
            now, done = await wait.until_ready(instance_id, options.readiness)
        else:
            now, done = await wait.until_in(instance_id, state)
        right = right and done
        return now

    return await show_each(instances_of(client), options.instances, one, show, settings) and right


def _seconds_of(options: Namespace) -> float:
    return WAIT_SECONDS if options.timeout is None else float(options.timeout)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e6:
        raise ArgumentTypeError(f"{word!r} is no number of seconds")
    return seconds


WAIT: Final = Command("wait", "wait until instances run and are ready, or are in a state", _wait_arguments, _wait)
