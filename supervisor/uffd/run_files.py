"""What a page server has in the run directory, held while it serves, and put back where somebody has removed it.

It outlives its supervisor, and what it has in memory nobody else has: above all which pages its guests gave back.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from supervisor.errors import PageServerError
from supervisor.system.control_socket import ControlSocket
from supervisor.system.held_directory import HeldDirectory
from supervisor.uffd.control import PutBack
from supervisor.uffd.session import Session


class RunFiles:
    """The directories of a control socket and of page maps; guests are served whether or not they can be held."""

    def __init__(self) -> None:
        self._directories: dict[Path, HeldDirectory] = {}

    def hold(self, directory: Path) -> None:
        """Hold a directory from now on."""
        held = self._directories.setdefault(directory, HeldDirectory(directory))
        with contextlib.suppress(OSError):
            held.hold()

    def put_back(self, control: ControlSocket, sessions: Iterable[Session]) -> PutBack:
        """Have everything where it belongs, as far as there are directories for it."""
        for directory in self._directories:
            self.hold(directory)
        listens, maps, failed = False, [], []
        try:
            listens = control.put_back()
        except (OSError, PageServerError) as error:
            failed.append(f"its control socket: {error}")
        for session in sessions:
            try:
                if session.put_back_map():
                    maps.append(session.terms.fork_id)
            except OSError as error:
                failed.append(f"the page map of fork {session.terms.fork_id}: {error.strerror}")
        return PutBack(listens, tuple(maps), tuple(failed))

    def close(self) -> None:
        """Let go of the directories."""
        for held in self._directories.values():
            held.close()
