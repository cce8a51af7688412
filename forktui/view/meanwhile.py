"""What has become of instances while something about them was asked. Pure."""

from collections.abc import Sequence

from forktui.model.world import World
from forktui.text.quantities import names
from supervisor.models import Instance


def changes(before: Sequence[Instance], world: World) -> list[str]:
    """Which of the instances have gone or are in another state than they were, a line each kind."""
    gone = [one.name for one in before if one.id not in world.instances]
    others = [(one, world.instances[one.id]) for one in before if one.id in world.instances]
    moved = [f"{one.name} was {one.state} and is {now.state}" for one, now in others if now.state != one.state]
    has = "has" if len(gone) == 1 else "have"
    return [*([f"{names(gone)} {has} gone meanwhile"] if gone else []), *([names(moved)] if moved else [])]
