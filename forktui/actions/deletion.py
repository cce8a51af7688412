"""Deletion: of instances, or of a locked source with all that is below it."""

from collections.abc import Sequence
from typing import Final

from forktui.actions.action import Group, Outcome, Selected, Targets, Verb
from forktui.actions.form import Question, Values
from forktui.actions.guards import locked
from forktui.actions.requests import CONCURRENCY, answers, each, outcome
from forktui.actions.states import NAMED, described, whom
from forktui.client.api import SupervisorClient
from forktui.model.forest import descendants, rows
from forktui.model.world import World, totals
from forktui.text.quantities import names, plural, size
from forktui.text.safe import safe_model
from supervisor.models import Deletion, DeletionPlan, Instance

PLANNED_MOST: Final = CONCURRENCY * 32
"""Instances of which the supervisor is asked what goes with them; of more the memory alone is told."""


def whole_tree(targets: Targets) -> bool:
    """Whether a deletion is that of a locked source, with everything below it."""
    return len(targets) == 1 and targets[0].mem_locked


def tree_lines(plan: DeletionPlan) -> tuple[str, ...]:
    """What becomes of a source and all that is below it, in the order in which they go."""
    lines = [
        f"{one.name}  {one.state}" + (f", {size(one.private_bytes)} private" if one.private_bytes else "")
        for one in plan.deletions
    ]
    if len(lines) > NAMED:
        lines[NAMED - 1 : -1] = [f"and {len(lines) - NAMED} more"]
    return (*lines, "", *_sums(plan.deletions))


def _sums(deletions: Sequence[Deletion]) -> tuple[str, str]:
    running = sum(one.running for one in deletions)
    disk, private = sum(one.disk_bytes for one in deletions), sum(one.private_bytes for one in deletions)
    told = f", {running} of them running" if running else ""
    return (
        f"What goes: {plural(len(deletions), 'instance')}{told}.",
        f"That frees {size(disk)} on disk and {size(private)} of private memory.",
    )


def _guard(instance: Instance, selected: Selected) -> str | None:
    """A locked source by itself is offered with its whole tree."""
    return None if len(selected) == 1 else locked(instance, selected.names)


def _question(world: World, targets: Targets) -> Question:
    if whole_tree(targets):
        below = len(descendants(world, targets[0].id))
        asked = f"Delete {targets[0].name} and the {'fork' if below == 1 else f'{below} forks'} below it?"
        until = (f"The supervisor is asked what goes with {targets[0].name}.",)
        return Question(asked, until, "Delete all", planned=True, adds={"cascade": "true"})
    private = totals(world, [instance.id for instance in targets]).private_bytes
    memory = f"{size(private)} of private memory and " if private else ""
    goes = f"What goes: {memory}the files of {'it' if len(targets) == 1 else 'all of them'}."
    says = (*described(world, targets), "", goes, *_left_behind(world, targets))
    return Question(f"Delete {whom(targets)}?", says, "Delete")


def _left_behind(world: World, targets: Targets) -> list[str]:
    """The instances below the targets, which stay and lose their source."""
    going = {instance.id for instance in targets}
    staying = [i for target in targets for i in descendants(world, target.id) if i not in going]
    kept = [world.instances[i].name for i in dict.fromkeys(staying)]
    return [f"Below it, {names(kept)} stay."] if kept else []


async def _plan(client: SupervisorClient, world: World, instance_ids: Sequence[str]) -> tuple[str, ...]:
    """What goes, as the supervisor plans it; raises ApiError."""
    targets = [world.instances[i] for i in instance_ids if i in world.instances]
    if whole_tree(targets):
        return tree_lines(safe_model(await client.deletion_plan(targets[0].id, cascade=True)))
    if not targets or len(targets) > PLANNED_MOST:
        return ()
    # A source is planned with its tree: of its forks, which go before it, those that were chosen are counted.
    plans = await answers(targets, lambda one: client.deletion_plan(one.id, cascade=one.mem_locked))
    # In a plan with what goes before it, an instance gives back more: the files that both have.
    known = sorted((one for plan in plans for one in plan.deletions), key=lambda one: one.disk_bytes)
    goes = {one.id: one for one in known if one.id in instance_ids}
    return (*described(world, targets), "", *_sums(list(goes.values())), *_left_behind(world, targets))


async def _delete(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    """Delete the instances, forks before their sources: a source is locked until its forks are gone."""
    targets = [world.instances[i] for i in instance_ids if i in world.instances]
    cascade = values.get("cascade") == "true"

    async def one(instance: Instance) -> str:
        await client.delete(instance.id, cascade=cascade)
        return f"{instance.name} and all below it" if cascade else instance.name

    depth = {row.id: row.depth for row in rows(world)}
    done: list[str] = []
    failures: list[str] = []
    for level in sorted({depth[target.id] for target in targets if target.id in depth}, reverse=True):
        gone, why_not = await each(world, [target.id for target in targets if depth.get(target.id) == level], one)
        done += gone
        failures += why_not
    return outcome("deleted:", done, failures)


DELETE: Final = Verb(
    word="delete",
    keys=("d", "delete"),
    label="Delete",
    help="Delete the instance and its files, of a locked source the whole tree, after a question that says what goes",
    command="remove an instance, or with --cascade the tree below it",
    group=Group.MACHINES,
    guard=_guard,
    question=_question,
    plan=_plan,
    do=_delete,
    footer=True,
    while_busy=True,
)
