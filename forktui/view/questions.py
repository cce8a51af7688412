"""What a question says will happen. Pure."""

from collections.abc import Sequence

from forktui.model.forest import descendants
from forktui.model.world import World, totals
from forktui.text.quantities import count, names, plural, size
from supervisor.models import DeletionPlan, Instance, State

NAMED = 6


def needs_question(action_id: str, targets: Sequence[Instance]) -> bool:
    """Whether an action is asked about before it is done: what it ends or takes cannot be brought back."""
    if action_id == "fork":
        return any(instance.state is State.RUNNING for instance in targets)
    return action_id in ("delete", "stop", "detach")


def question(action_id: str, targets: Sequence[Instance]) -> str:
    """The question itself."""
    whom = targets[0].name if len(targets) == 1 else f"{len(targets)} instances"
    return f"Copy {whom} while it runs?" if action_id == "fork" else f"{action_id.capitalize()} {whom}?"


def consequences(action_id: str, world: World, targets: Sequence[Instance]) -> list[str]:
    """What becomes of the targets, a line each."""
    if action_id == "fork":
        return [
            "A share_memory fork needs a Standby source: C makes one of it, a checkpoint.",
            "A copy works now: the source is paused while its memory is written,",
            "and runs on.",
        ]
    if action_id == "detach":
        return _detached(targets)
    lines = [_described(world, instance) for instance in targets[:NAMED]]
    if len(targets) > NAMED:
        lines.append(f"and {len(targets) - NAMED} more")
    sums = totals(world, [instance.id for instance in targets])
    if action_id == "stop":
        lost = f": {size(sums.private_bytes)} private" if sums.private_bytes else ""
        return [*lines, "", f"What is in memory is lost{lost}; no snapshot is written."]
    memory = f"{size(sums.private_bytes)} of private memory and " if sums.private_bytes else ""
    lines += ["", f"What goes: {memory}the files of {'it' if len(targets) == 1 else 'all of them'}."]
    return lines + _left_behind(world, targets)


def tree_consequences(plan: DeletionPlan) -> list[str]:
    """What becomes of a source and all that is below it, in the order in which they go."""
    lines = [
        f"{one.name}  {one.state}" + (f", {size(one.private_bytes)} private" if one.private_bytes else "")
        for one in plan.deletions
    ]
    if len(lines) > NAMED:
        lines[NAMED - 1 : -1] = [f"and {len(lines) - NAMED} more"]
    running = f", {plan.running} of them running" if plan.running else ""
    freed = f"{size(plan.disk_bytes)} on disk and {size(plan.private_bytes)} of private memory"
    return [*lines, "", f"What goes: {plural(len(plan.deletions), 'instance')}{running}.", f"That frees {freed}."]


def fan_out_facts(world: World, source: Instance) -> str:
    """What a fan-out of the source is made from, and how much memory is free for it."""
    template = world.template_of(source)
    memory = f"{size(source.size_bytes)} each at most, {size(world.host.memory_available_bytes)} free on the host"
    if template is None or not template.recorded_pages:
        return f"{memory}\nno hot pages are recorded yet: the first fork records them"
    return f"{memory}\n{count(template.recorded_pages)} recorded hot pages are prefetched into each"


def _detached(targets: Sequence[Instance]) -> list[str]:
    whose, in_all = ("It", "") if len(targets) == 1 else ("Each", " in all")
    running = [instance.size_bytes for instance in targets if instance.vmm_pid is not None]
    if not running:
        return [f"{whose} keeps its snapshot.", "Its source's lock is released by as much."]
    return [
        f"{whose} gets all of its memory: {size(sum(running))}{in_all} at most.",
        "Its source's lock is released by as much; the guest goes on meanwhile.",
    ]


def _described(world: World, instance: Instance) -> str:
    private = world.statistics_of(instance.id).private_bytes
    memory = f", {size(private)} private" if private else ""
    return f"{instance.name}  {instance.state}{memory}"


def _left_behind(world: World, targets: Sequence[Instance]) -> list[str]:
    """The instances below the targets, which stay and lose their source."""
    going = {instance.id for instance in targets}
    staying = [i for target in targets for i in descendants(world, target.id) if i not in going]
    kept = [world.instances[i].name for i in dict.fromkeys(staying)]
    return [f"Below it, {names(kept)} stay."] if kept else []
