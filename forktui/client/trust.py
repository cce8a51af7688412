"""Whose socket a client speaks to: whoever answers there is told what to delete, and what he says is believed."""

import os
import pwd
from pathlib import Path

from supervisor.system.trusted_paths import distrusted
from supervisor.system.user_namespace import may_be_anybody


class UntrustedSocketError(Exception):
    """Somebody else may be at the other end of a socket; the message is one line that says who, and what to do."""


class Trust:
    """A socket of root's, this user's, or the user's that is named is spoken to; nothing is sent to any other's."""

    def __init__(self, path: Path, supervisor_user: int | None) -> None:
        self._path = path
        named = () if supervisor_user is None else (supervisor_user,)
        self._users = frozenset(uid for uid in (0, os.geteuid(), *named) if not may_be_anybody(uid))

    def check_path(self) -> None:
        """Raise UntrustedSocketError where somebody else could have put a socket of his own there."""
        found = distrusted(self._path, self._users)
        if found is not None:
            raise UntrustedSocketError(f"{self._path}: {found.reason}; {_remedy(found.owner)}")

    def check_peer(self, uid: int) -> None:
        """Raise UntrustedSocketError where who answers is somebody else."""
        if uid not in self._users:
            raise UntrustedSocketError(f"{self._path}: who answers there is uid {uid}; {_remedy(uid)}")


def _remedy(uid: int | None) -> str:
    """Return what to do where something is a user's, or may be anybody's."""
    elsewhere = "name another socket with --socket"
    if uid is None:
        return elsewhere
    if may_be_anybody(uid):
        return f"that may be anybody of another user namespace; {elsewhere}"
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return f"{elsewhere}, or where it is that user's supervisor that you mean, say so with --supervisor-user {user}"
