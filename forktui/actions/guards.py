"""What several verbs refuse alike. Pure."""

from forktui.text.quantities import names
from supervisor.models import Instance, SupervisorInfo


def forbidden(supervisor: SupervisorInfo | None, *, live: bool, read_only: bool) -> str | None:
    """Why nothing at all can be changed and what would allow it; None where something can.

    `live` tells whether the data is, `read_only` whether forktui was told to change nothing.
    """
    if not live or supervisor is None:
        return "not connected to the supervisor, or it does not answer"
    if read_only:
        return "read-only; forktui was started so: start it without --read-only (FORKTUI_READ_ONLY)"
    if not supervisor.writable:
        return "read-only; the supervisor lets only its own user, root and its group change it"
    return None


def locked(instance: Instance, released: frozenset[str] = frozenset()) -> str | None:
    """Why the lock forbids, where forks other than the `released` ones hold it."""
    if not instance.mem_locked or (instance.locked_by and released.issuperset(instance.locked_by)):
        return None
    forks, them = ("share_memory fork", "it") if instance.fork_count == 1 else ("share_memory forks", "them")
    held_by = names(instance.locked_by, total=instance.fork_count)
    return (
        f"{instance.name} has {instance.fork_count} {forks} ({held_by}): delete {them} first (d), or detach {them} (t)"
    )
