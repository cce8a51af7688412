"""The verbs that change an instance's state, or end what is under way on it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from forktui.actions.action import Do, Group, Outcome, Targets, Verb, unasked
from forktui.actions.form import Field, Form, Question, Values, filled
from forktui.actions.guards import locked
from forktui.actions.requests import done_to_each
from forktui.client.api import SupervisorClient
from forktui.model.world import World, totals
from forktui.text.quantities import count, ended, size
from supervisor.models import AcceptRequest, Instance, State

NAMED: Final = 6
"""How many of those that a question is about are named."""
_CHANGED: Final = Field("changed", "changed", choices=("false", "true"))


def described(world: World, targets: Targets) -> list[str]:
    """Whom a question is about, a line each."""
    lines = []
    for instance in targets[:NAMED]:
        private = world.statistics_of(instance.id).private_bytes
        lines.append(f"{instance.name}  {instance.state}" + (f", {size(private)} private" if private else ""))
    return lines + ([f"and {len(targets) - NAMED} more"] if len(targets) > NAMED else [])


def whom(targets: Targets) -> str:
    """Whom a question is about, in a word or two."""
    return targets[0].name if len(targets) == 1 else f"{len(targets)} instances"


def _to_each(what: str, verb: Callable[[SupervisorClient, Instance], Awaitable[Instance]]) -> Do:
    """Return what does one request to each, and tells `what` came of them."""

    async def do(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
        async def one(instance: Instance) -> str:
            return (await verb(client, instance)).name

        return await done_to_each(what, world, instance_ids, one)

    return do


def _standby_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state is State.RUNNING:
        return None
    if instance.state is State.STANDBY:
        return f"{instance.name} is in Standby already"
    return f"{instance.name} is {instance.state}: only a Running instance can be put to standby"


def _restore_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state in (State.STANDBY, State.STOPPED):
        return locked(instance)
    if instance.state is State.RUNNING:
        return f"{instance.name} is Running already"
    return f"{instance.name} is {instance.state}: only Standby can be restored, only Stopped started"


def _restore_question(world: World, targets: Targets) -> Question | None:
    templates = [template for one in targets if (template := world.template_of(one)) is not None]
    recorded = sum(template.recorded_pages for template in templates)
    cold = [one for one in targets if one.state is State.STOPPED and one.source_id is not None]
    says: tuple[str, ...] = ()
    if recorded:
        says += (
            f"What is lost: {count(recorded)} recorded hot pages; the next fork records anew.",
            "Its memory stays as it is, and it runs on from there.",
        )
    if cold:
        one = len(cold) == 1
        whose, boots = (cold[0].name, "It boots") if one else (f"{len(cold)} of them", "They boot")
        like, image = ("it was", "its image") if one else ("they were", "their images")
        says += (
            f"{whose}: Stopped, thus without memory. {boots} anew from {image},",
            f"not from a source's memory. For another like {like}, fork the source: f.",
        )
    if not says:
        return None
    verb = "Start" if len(cold) == len(targets) else "Restore"
    return Question(f"{verb} {whom(targets)}?", says, verb)


async def _run(client: SupervisorClient, instance: Instance) -> Instance:
    return await (client.start if instance.state is State.STOPPED else client.restore)(instance.id)


def _stop_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state in (State.RUNNING, State.PAUSED, State.INITIALIZING):
        return None
    if instance.state is State.STOPPED:
        return f"{instance.name} is Stopped already"
    if instance.state is State.STANDBY:
        return f"{instance.name} is in Standby: it does not run, so there is nothing to stop"
    return f"{instance.name} is {instance.state}: only a running VM can be stopped"


def _stop_question(world: World, targets: Targets) -> Question:
    private = totals(world, [instance.id for instance in targets]).private_bytes
    lost = f": {size(private)} private" if private else ""
    says = (
        *described(world, targets),
        "",
        f"What is in memory is lost{lost}; no snapshot is written.",
        "Its disks and its place in the tree stay; r boots it anew.",
    )
    return Question(f"Stop {whom(targets)}?", says, "Stop")


def _detach_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.fork_kind != "share_memory":
        return f"{instance.name} is no share_memory fork: it holds no lock"
    if instance.state in (State.RUNNING, State.STANDBY, State.STOPPED):
        return None
    return f"{instance.name} is {instance.state}: only Running, Standby or Stopped forks can let go of their source"


def _detach_question(world: World, targets: Targets) -> Question:
    whose, in_all = ("It", "") if len(targets) == 1 else ("Each", " in all")
    running = [instance.size_bytes for instance in targets if instance.vmm_pid is not None]
    rests = any(instance.state is State.STANDBY for instance in targets)
    kept = "snapshot" if rests else "disks; it has no memory to keep"
    says = (f"{whose} keeps its {kept}.", "Its source is let go of: it has a fork less that locks it.")
    if running:
        says = (
            f"{whose} gets all of its memory: {size(sum(running))}{in_all} at most.",
            "Its source is let go of: it has a fork less that locks it. The guest goes on meanwhile.",
        )
    return Question(f"Detach {whom(targets)}?", says, "Detach")


def _cancel_guard(instance: Instance, selected: Targets) -> str | None:
    return None if instance.operation is not None else f"nothing is under way on {instance.name}"


async def _cancel(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    """End what each is shown to be at; what was made by then stays."""

    async def one(instance: Instance) -> str:
        return ended(await client.cancel(instance.operation.id)) if instance.operation is not None else ""

    return await done_to_each("", world, instance_ids, one)


def _accept_guard(instance: Instance, selected: Targets) -> str | None:
    if instance.state is State.STANDBY:
        return None
    return f"{instance.name} is {instance.state}: only the memory of a Standby instance can be taken for what it is"


def _accept_form(world: World, targets: Targets) -> Form:
    says = (
        "A memory that was put back is read to its last byte, and a digest of it noted.",
        "changed: also where it is another memory than what was noted.",
    )
    return Form(f"Accept the memory of {whom(targets)}", says, (_CHANGED,), AcceptRequest)


async def _accept(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    request = AcceptRequest.model_validate(filled(values))

    async def one(instance: Instance) -> str:
        return (await client.accept(instance.id, request)).name

    return await done_to_each("accepted:", world, instance_ids, one)


STANDBY: Final = Verb(
    word="standby",
    keys=("s",),
    label="Standby",
    help="Write the memory of a Running instance to a snapshot and end its VMM",
    command="write a snapshot of a Running instance and end its VMM",
    group=Group.MACHINES,
    guard=_standby_guard,
    question=unasked,
    do=_to_each("in Standby:", lambda client, instance: client.standby(instance.id)),
    footer=True,
)
RESTORE: Final = Verb(
    word="restore",
    also=("start",),
    keys=("r",),
    label="Restore",
    help="Run a Standby instance on, after a question where that costs recorded pages, or start a Stopped one",
    command="run a Standby instance on",
    group=Group.MACHINES,
    guard=_restore_guard,
    question=_restore_question,
    do=_to_each("running:", _run),
    footer=True,
)
STOP: Final = Verb(
    word="stop",
    keys=("x",),
    label="Stop",
    help="End the VMM without a snapshot, after a question: what is in memory is lost",
    command="end an instance's VMM; its memory is lost",
    group=Group.MACHINES,
    guard=_stop_guard,
    question=_stop_question,
    do=_to_each("stopped:", lambda client, instance: client.stop(instance.id)),
    footer=True,
    while_busy=True,
)
DETACH: Final = Verb(
    word="detach",
    keys=("t",),
    label="Detach",
    help="Give a share_memory fork all of its memory, so that its source is locked no more; the guest goes on",
    command="give a fork all of its memory, so that its source is locked no more",
    group=Group.MACHINES,
    guard=_detach_guard,
    question=_detach_question,
    do=_to_each("detached:", lambda client, instance: client.detach(instance.id)),
)
CANCEL: Final = Verb(
    word="cancel",
    keys=("X",),
    label="Cancel",
    help="End what is under way: a fan-out, whose forks stay as far as they are made, a deletion, a detach, a snapshot",
    command="end what is under way: a fan-out, a deletion, a detach, ...",
    group=Group.MACHINES,
    guard=_cancel_guard,
    question=unasked,
    do=_cancel,
    while_busy=True,
)
ACCEPT: Final = Verb(
    word="accept",
    keys=("A",),
    label="Accept…",
    help="Read a memory that was put back, as from a backup, and take it for what it is",
    command="read a memory that was put back, and take it for what it is",
    group=Group.MACHINES,
    guard=_accept_guard,
    question=unasked,
    form=_accept_form,
    fields=(_CHANGED,),
    do=_accept,
)
