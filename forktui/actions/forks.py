"""The verbs that make children of an instance: a fork, many forks, a checkpoint."""

from collections.abc import Sequence
from typing import Final, get_args

from forktui.actions.action import Group, Outcome, Targets, Verb, unasked
from forktui.actions.fan_out_estimate import look, review
from forktui.actions.form import METADATA, READINESS, Field, Form, Values, filled
from forktui.actions.requests import done_to_each, first
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.model.world import World
from forktui.text.quantities import count, milliseconds, names, plural, size
from forktui.text.remedies import in_dashboard
from forktui.text.safe import safe_text
from supervisor.models import (
    CheckpointRequest,
    FanOutRequest,
    ForkRequest,
    Instance,
    MemoryBackend,
    PrefetchMode,
    RecordMode,
    State,
    TargetState,
)

DEFAULT_COUNT: Final = 8

_TARGET: Final = Field("target_state", "state", choices=tuple(reversed(get_args(TargetState))))
_SHARED: Final = (
    _TARGET,
    Field("memory_backend", "backend", choices=get_args(MemoryBackend)),
    Field("prefetch", "prefetch", choices=get_args(PrefetchMode)),
    Field("record", "record", choices=get_args(RecordMode)),
    READINESS,
    METADATA,
)
_ONE_NAME: Final = Field("name", "name", hint="its source's name and a number")
_MANY: Final = (
    Field("count", "forks", value=str(DEFAULT_COUNT), placed=True),
    Field("name_prefix", "name prefix", hint="the source's name"),
    *_SHARED,
    Field("concurrency", "at once", hint=str(FanOutRequest.model_fields["concurrency"].default)),
)


def _fork_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state in (State.STANDBY, State.RUNNING):
        return None
    remedy = "press r to start it, then s" if instance.state is State.STOPPED else "a fork needs Standby or Running"
    return f"{instance.name} is {instance.state}: {remedy}"


def _fork_form(world: World, targets: Targets) -> Form:
    whom = targets[0].name if len(targets) == 1 else f"each of {len(targets)} instances"
    name = (_ONE_NAME,) if len(targets) == 1 else ()
    taken = frozenset(one.name for one in world.instances.values())
    if all(one.state is State.RUNNING for one in targets):
        says = (
            "A copy: paused while its memory is written, and then it runs on.",
            "For forks that share memory make a checkpoint first: C.",
        )
        return Form(f"Copy {whom} while it runs", says, (*name, _TARGET, READINESS, METADATA), ForkRequest, taken=taken)
    copied = ("Those that run are paused and copied.",) if any(one.state is State.RUNNING for one in targets) else ()
    facts = (_memory(world, targets[0]), _prefetched(world, targets[0]), *copied)
    return Form(f"Fork {whom}", facts, (*name, *_SHARED), ForkRequest, taken=taken)


async def _fork(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    """One fork of each: shared memory of a Standby source, a copy of a Running one."""

    async def one(instance: Instance) -> str:
        running = instance.state is State.RUNNING
        request = ForkRequest.model_validate(
            {"target_state": "Running", **filled(values), "share_memory": not running, "from_running": running}
        )
        return (await client.fork(instance.id, request)).name

    return await done_to_each("forked:", world, instance_ids, one)


def _fan_out_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state is State.STANDBY:
        return None
    remedy = {State.RUNNING: "press s to put it to standby first", State.STOPPED: "press r to start it, then s"}
    return f"{instance.name} is {instance.state}: {remedy.get(instance.state, 'share_memory forks need Standby')}"


def _fan_out_form(world: World, targets: Targets) -> Form:
    (source,) = targets
    says = (_memory(world, source), _prefetched(world, source))
    return Form(f"How many forks of {source.name}?", says, _MANY, FanOutRequest, look=look, review=review)


async def _fan_out(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    """Many share_memory forks of one Standby instance."""
    request = FanOutRequest.model_validate({**filled(values), "share_memory": True})
    try:
        result = await client.fan_out(instance_ids[0], request)
    except (ApiError, SupervisorUnreachableError) as error:
        return Outcome("", (in_dashboard(error),))
    made = [safe_text(child.name) for child in result.children if child.error is None]
    failed = [f"{safe_text(child.name)}: {in_dashboard(child.error)}" for child in result.children if child.error]
    done = f"{plural(len(made), 'fork')} in {milliseconds(result.milliseconds)}: {names(made)}" if made else ""
    return Outcome(done, first(failed))


def _checkpoint_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state is State.RUNNING:
        return None
    if instance.state is State.STANDBY:
        return f"{instance.name} is in Standby: press f to fork it"
    remedy = "press r to start it" if instance.state is State.STOPPED else "only a Running instance has one"
    return f"{instance.name} is {instance.state}: {remedy}"


def _checkpoint_form(world: World, targets: Targets) -> Form:
    whom = targets[0].name if len(targets) == 1 else f"each of {len(targets)} instances"
    says = (
        "A Standby instance with its memory as it is now, to be forked (f, F).",
        "It is paused for milliseconds and runs on; nothing of it is lost.",
    )
    name = (_ONE_NAME,) if len(targets) == 1 else ()
    taken = frozenset(one.name for one in world.instances.values())
    return Form(f"Checkpoint {whom}", says, (*name, METADATA), CheckpointRequest, taken=taken)


async def _checkpoint(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    """One checkpoint of each, with how long its source was paused."""
    request = CheckpointRequest.model_validate(filled(values))

    async def one(instance: Instance) -> str:
        made = await client.checkpoint(instance.id, request)
        paused = (f" (paused {milliseconds(phase.milliseconds)})" for phase in made.phases if phase.name == "paused")
        return made.name + next(paused, "")

    return await done_to_each("checkpoints:", world, instance_ids, one)


def _memory(world: World, source: Instance) -> str:
    """How much memory a fork takes at most, and how much is free for it."""
    return f"{size(source.size_bytes)} each at most, {size(world.host.memory_available_bytes)} free on the host"


def _prefetched(world: World, source: Instance) -> str:
    template = world.template_of(source)
    if template is None or not template.recorded_pages:
        return "no hot pages are recorded yet: the first fork records them"
    return f"{count(template.recorded_pages)} recorded hot pages are prefetched; record: on records them anew"


FORK: Final = Verb(
    word="fork",
    keys=("f",),
    label="Fork…",
    help="One fork that shares the memory of a Standby source, or a copy of a Running one",
    command="make one fork of an instance",
    group=Group.MACHINES,
    guard=_fork_guard,
    question=unasked,
    form=_fork_form,
    fields=(_ONE_NAME, *_SHARED),
    do=_fork,
    footer=True,
)
FAN_OUT: Final = Verb(
    word="fan-out",
    keys=("F",),
    label="Fan out…",
    help="Ask for a number and make that many share_memory forks at once",
    command="make many forks of an instance",
    group=Group.MACHINES,
    guard=_fan_out_guard,
    question=unasked,
    form=_fan_out_form,
    fields=_MANY,
    do=_fan_out,
    footer=True,
    one=True,
)
CHECKPOINT: Final = Verb(
    word="checkpoint",
    keys=("C",),
    label="Checkpoint…",
    help="A Standby instance of a Running one, which is paused for milliseconds and runs on",
    command="make a Standby instance of a Running one, which runs on",
    group=Group.MACHINES,
    guard=_checkpoint_guard,
    question=unasked,
    form=_checkpoint_form,
    fields=(_ONE_NAME, METADATA),
    do=_checkpoint,
)
