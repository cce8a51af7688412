"""The supervisor is killed at every step of every operation: afterwards the operation is done or undone, never half.

So it is where the console holder is killed with it.

Each story is told once undisturbed, which says what its steps are; then once for each step, with SIGKILL at it. A new
supervisor must find a whole host, whose guests verify their memory and on which the same operation then succeeds.
"""

import asyncio
import os
import random
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, HostSnapshot, State
from tests.harness.supervisor_process import (
    Home,
    RunningSupervisor,
    console_holder,
    find,
    supervisor,
    until,
    walking_source,
)
from tests.harness.waiting import until as until_true
from tests.harness.wholeness import walked_on, whole

KILLS = int(os.environ.get("FORKTUI_TEST_KILLS", "2"))
"""At how many steps of a story the supervisor is killed, chosen at random; the whole matrix takes a hundred."""
GUEST = ("passes=0", "hot_mib=1")

Act = Callable[[SupervisorClient], Awaitable[object]]


@dataclass(frozen=True)
class Story:
    """An operation, how things are made as they are before it, and how one sees that it was done."""

    name: str
    verb: str
    hypervisor: str
    prepare: Act
    """Called before each telling, whatever the one before left."""
    act: Act
    done: Callable[[HostSnapshot], bool]
    options: tuple[str, ...] = ()
    with_holder: bool = False
    """Whether the console holder is killed at the same steps, too."""


async def ready(client: SupervisorClient, state: State) -> None:
    """Have one instance, `source`, walking or with what it has walked in Standby; nothing else, and no template."""
    host = await until(lambda host: True, client)
    for one in host.instances:
        if one.name != "source" and find(await until(lambda host: True, client), one.name):
            await client.delete(one.id, cascade=True)
    source = find(await until(lambda host: True, client), "source")
    if source is None:
        await walking_source(client, "source", *GUEST)
    elif source.state is State.STOPPED:
        await client.start("source")
        await client.wait("source", State.RUNNING, 10)
    if source is None or source.state is not State.STANDBY:
        await client.standby("source")
    # Whatever was killed before: it is promoted no more, and its memory is one file that its next layer is relative to.
    await client.restore("source")
    if state is State.STANDBY:
        await client.standby("source")
    elif state is State.STOPPED:
        await client.stop("source")


def in_state(name: str, state: State) -> Callable[[HostSnapshot], bool]:
    def holds(host: HostSnapshot) -> bool:
        one = find(host, name)
        return one is not None and one.state is state

    return holds


def let_go(host: HostSnapshot) -> bool:
    """Whether the fork runs by itself. Where it does not, it holds its source's lock yet."""
    child, source = find(host, "child"), find(host, "source")
    assert child is not None and source is not None
    free = child.fork_kind == "copy"
    assert (child.state is State.RUNNING) is free is not source.mem_locked
    return free


def gone(name: str) -> Callable[[HostSnapshot], bool]:
    return lambda host: find(host, name) is None


async def no_vm(client: SupervisorClient) -> None:
    for one in await client.instances():
        await client.delete(one.id)


async def running(client: SupervisorClient) -> None:
    await ready(client, State.RUNNING)


async def standby(client: SupervisorClient) -> None:
    await ready(client, State.STANDBY)


async def stopped(client: SupervisorClient) -> None:
    await ready(client, State.STOPPED)


async def promoted(client: SupervisorClient) -> None:
    await ready(client, State.STANDBY)
    await client.fork("source", SHARED.model_copy(update={"target_state": "Standby"}))
    await client.delete("child")


async def fork_in_standby(client: SupervisorClient) -> None:
    child = find(await until(lambda host: True, client), "child")
    if child is not None and child.state is State.STANDBY:
        # What was undone is done when it is asked for again, by the page server that had it half done.
        await client.restore("child")
    await ready(client, State.STANDBY)
    await client.fork("source", SHARED.model_copy(update={"target_state": "Standby"}))


async def forked(client: SupervisorClient) -> None:
    await ready(client, State.STANDBY)
    await client.fork("source", SHARED)


async def fork_by_itself(client: SupervisorClient) -> None:
    await forked(client)
    await client.standby("child")


async def fork_without_memory(client: SupervisorClient) -> None:
    await forked(client)
    await client.stop("child")


async def family(client: SupervisorClient) -> None:
    await forked(client)
    await client.standby("child")
    await client.fork("child", SHARED.model_copy(update={"name": "grandchild"}))


async def cancelled_fan_out(client: SupervisorClient) -> None:
    """Begin a fan-out, and cancel it so that nothing of it stays."""
    request = FanOutRequest(count=64, concurrency=2, name_prefix="child", record="off")
    making = asyncio.create_task(client.fan_out("source", request))
    try:
        while not (found := [one for one in await client.operations() if one.verb == "fan-out"]):
            await client.health()
        await client.cancel(found[0].id, delete_made=True)
    finally:
        await asyncio.wait((making,))
    await making


async def long_chain(client: SupervisorClient) -> None:
    """As many layers as there may be: the next one has them merged."""
    await ready(client, State.RUNNING)
    while (await client.instance("source")).layers != 2:
        await client.checkpoint("source", CheckpointRequest(name="child"))
        await client.delete("child")


SHARED = ForkRequest(name="child", share_memory=True, target_state="Running", record="off")
FILE = SHARED.model_copy(update={"memory_backend": "file"})
COPY = ForkRequest(name="child", target_state="Running")
LIVE = ForkRequest(name="child", from_running=True, target_state="Running")
CHECKPOINT = CheckpointRequest(name="child")
NEW = CreateRequest(name="source", image="pagewalker", cmd=GUEST)

STANDBY, RUNNING, STOPPED = State.STANDBY, State.RUNNING, State.STOPPED
BOTH = ("embedded", "firecracker")


def told(
    hypervisors: tuple[str, ...], *arguments: object, options: tuple[str, ...] = (), with_holder: bool = False
) -> list[Story]:
    name, verb, prepare, act, done = arguments
    return [
        Story(str(name), str(verb), one, prepare, act, done, options, with_holder)  # type: ignore[arg-type]
        for one in hypervisors
    ]


EMBEDDED = ("embedded",)
STORIES = [
    *told(EMBEDDED, "create", "create", no_vm, lambda c: c.create(NEW), in_state("source", RUNNING)),
    *told(EMBEDDED, "start", "start", stopped, lambda c: c.start("source"), in_state("source", RUNNING)),
    *told(EMBEDDED, "stop", "stop", running, lambda c: c.stop("source"), in_state("source", STOPPED)),
    *told(BOTH, "standby", "standby", running, lambda c: c.standby("source"), in_state("source", STANDBY)),
    *told(BOTH, "restore", "restore", promoted, lambda c: c.restore("source"), in_state("source", RUNNING)),
    *told(BOTH, "restore-a-fork", "restore", fork_in_standby, lambda c: c.restore("child"), in_state("child", RUNNING)),
    *told(BOTH, "restore-and-let-go", "restore", fork_by_itself, lambda c: c.restore("child"), let_go),
    *told(BOTH, "start-and-let-go", "start", fork_without_memory, lambda c: c.start("child"), let_go),
    *told(BOTH, "fork-shared", "fork", standby, lambda c: c.fork("source", SHARED), in_state("child", RUNNING)),
    *told(EMBEDDED, "fork-file", "fork", standby, lambda c: c.fork("source", FILE), in_state("child", RUNNING)),
    *told(BOTH, "fork-copy", "fork", standby, lambda c: c.fork("source", COPY), in_state("child", RUNNING)),
    *told(
        BOTH, "fork-from-running", "fork", running, lambda c: c.fork("source", LIVE), in_state("child", RUNNING),
        options=("--max-layers", "64"),
    ),
    *told(
        BOTH, "checkpoint", "checkpoint", running, lambda c: c.checkpoint("source", CHECKPOINT),
        in_state("child", STANDBY), options=("--max-layers", "64"),
    ),
    *told(
        EMBEDDED, "checkpoint-and-compact", "checkpoint", long_chain, lambda c: c.checkpoint("source", CHECKPOINT),
        in_state("child", STANDBY), options=("--max-layers", "2"),
    ),
    *told(BOTH, "detach", "detach", forked, lambda c: c.detach("child"), lambda host: not host_locked(host)),
    *told(EMBEDDED, "accept", "accept", promoted, lambda c: c.accept("source"), in_state("source", STANDBY)),
    *told(EMBEDDED, "delete-a-fork", "delete", forked, lambda c: c.delete("child"), gone("child")),
    *told(EMBEDDED, "delete-promoted", "delete", promoted, lambda c: c.delete("source"), gone("source")),
    *told(EMBEDDED, "cancel-a-fan-out", "fan-out", standby, cancelled_fan_out, lambda host: len(host.instances) == 1),
    *told(EMBEDDED, "cascade-in-steps", "cascade", family, lambda c: c.delete("source", cascade=True), gone("source")),
    *told(EMBEDDED, "cascade", "delete", family, lambda c: c.delete("source", cascade=True), gone("source")),
    *told(
        EMBEDDED, "create-and-holder", "create", no_vm, lambda c: c.create(NEW), in_state("source", RUNNING),
        with_holder=True,
    ),
    *told(
        EMBEDDED, "standby-and-holder", "standby", running, lambda c: c.standby("source"), in_state("source", STANDBY),
        with_holder=True,
    ),
    *told(
        BOTH, "fork-and-holder", "fork", standby, lambda c: c.fork("source", SHARED), in_state("child", RUNNING),
        with_holder=True,
    ),
    *told(
        EMBEDDED, "delete-and-holder", "delete", forked, lambda c: c.delete("child"), gone("child"), with_holder=True
    ),
]  # fmt: skip


def host_locked(host: HostSnapshot) -> bool:
    return any(one.mem_locked for one in host.instances)


@pytest.fixture
def stepped(story: Story, request: pytest.FixtureRequest) -> Home:
    """Return the home of a story, whose supervisor is killed at the step that the file `failpoint` names."""
    name = "firecracker_home" if story.hypervisor == "firecracker" else "embedded"
    home: Home = request.getfixturevalue(name)
    failpoint = home.root / "failpoint"
    failpoint.touch()
    home.options = ("--log-level", "debug", *story.options)
    home.environment = {"FORKTUI_FAILPOINT": str(failpoint)}
    return home


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=lambda story: f"{story.name}-{story.hypervisor}")
async def test_an_operation_killed_at_any_step_is_done_or_undone(stepped: Home, story: Story) -> None:
    steps = await undisturbed(stepped, story)
    assert steps[-1] == "end"
    numbers = range(1, len(steps) + 1)
    chosen = sorted(random.sample(numbers, min(KILLS, len(steps))))
    print(f"{story.name} {story.hypervisor}: killed at {[steps[number - 1] for number in chosen]}")
    outcomes: dict[int, str] = {}
    for killed, number in zip([None, *chosen], [*chosen, None], strict=True):
        async with supervisor(stepped) as running:
            if killed is not None:
                outcomes[killed] = await outcome(story, running)
                print(f"{story.name:24} {story.hypervisor:12} {killed:3} {steps[killed - 1]:20} {outcomes[killed]}")
            await story.prepare(running.client)
            if number is not None:
                await killed_at(story, running, number, steps[number - 1])
                continue
            await story.act(running.client)
            assert story.done(await whole(running))
            await ready(running.client, State.RUNNING)
            await no_vm(running.client)
    assert outcomes.get(len(steps), "done") == "done"
    assert stepped.processes() == []


async def undisturbed(home: Home, story: Story) -> list[str]:
    """Tell the story and return the names of its steps."""
    async with supervisor(home) as running:
        await story.prepare(running.client)
        before = len(running.log.read_text())
        await story.act(running.client)
        steps = named_steps(story, running.log.read_text()[before:])
        assert story.done(await whole(running))
    return steps


def named_steps(story: Story, log: str) -> list[str]:
    return re.findall(rf"supervisor\.concurrency\.progress: {story.verb}: (.*)", log)


async def killed_at(story: Story, running: RunningSupervisor, number: int, step: str) -> None:
    """Have the supervisor kill itself at a step of the story, given by its number and its name."""
    arm(running.home, f"{story.verb}:{number}")
    with pytest.raises((SupervisorUnreachableError, ApiError)):
        await story.act(running.client)
    arm(running.home, "")
    assert await running.process.wait() == -signal.SIGKILL
    holder = await asyncio.to_thread(console_holder, running.home) if story.with_holder else None
    if holder is not None:
        psutil.Process(holder).kill()
        await until_true(lambda: not psutil.pid_exists(holder))
    assert named_steps(story, running.log.read_text())[-1] == step


def arm(home: Home, step: str) -> None:
    Path(home.environment["FORKTUI_FAILPOINT"]).write_text(step)


async def outcome(story: Story, after: RunningSupervisor) -> str:
    """Return whether the operation was done or undone, once the host is found to be whole and its guests go on."""
    host = await whole(after)
    await walked_on(after.client)
    return "done" if story.done(host) else "undone"
