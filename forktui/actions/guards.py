"""What several verbs refuse alike. Pure."""

from forktui.text.quantities import names
from supervisor.models import Instance


def locked(instance: Instance, released: frozenset[str] = frozenset()) -> str | None:
    """Why the lock forbids, where forks other than the `released` ones hold it."""
    if not instance.mem_locked or (instance.locked_by and released.issuperset(instance.locked_by)):
        return None
    forks, them = ("share_memory fork", "it") if instance.fork_count == 1 else ("share_memory forks", "them")
    held_by = names(instance.locked_by, total=instance.fork_count)
    return (
        f"{instance.name} has {instance.fork_count} {forks} ({held_by}): delete {them} first (d), or detach {them} (t)"
    )
