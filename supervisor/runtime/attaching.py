"""A fork attached to its page server: the socket by which its VMM hands over its userfaultfd, bound and passed on."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.concurrency.progress import step
from supervisor.errors import PageServerError
from supervisor.jails.quarters import UFFD_PATH
from supervisor.jails.roots import UFFD_SOCKET
from supervisor.models import PrefetchMode
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord
from supervisor.system import unix_sockets
from supervisor.uffd.handle import PageServer

_MODE: Final = 0o600


class Attaching:
    """What is done for a fork once its VMM's pid is known, and before that loads."""

    def __init__(self, server: PageServer, record: InstanceRecord, layout: Layout, *, records: bool) -> None:
        """Attach with what the record says is to be prefetched; nothing where the fork `records` hot pages."""
        jailed = record.jail_uid is not None
        self._server = server
        self._record = record
        self._records = records
        self._page_map = layout.page_map(record.id)
        self.socket = layout.jail_root(record.id) / UFFD_SOCKET if jailed else layout.uffd_socket(record.id)
        """Where the VMM is to connect."""
        self.told = UFFD_PATH if jailed else str(self.socket)
        """The same as the VMM knows it."""
        self.prefetch: PrefetchMode = "off" if records else record.prefetch

    async def attach(self, vmm_pid: int) -> None:
        """Have the page server wait for this VMM at the socket, whose file is the caller's to remove."""
        step("attach")
        with listener_for(self.socket, self._record.jail_uid) as listener:
            await self._server.attach(
                self._record.id,
                listener=listener,
                path=self.socket,
                page_map=self._page_map,
                vmm_pid=vmm_pid,
                prefetch=self.prefetch,
                record=self._records,
            )


@contextlib.contextmanager
def listener_for(path: Path, uid: int | None = None) -> Iterator[socket.socket]:
    """Give a socket that listens at `path`, to be handed on within the context; its file stays.

    It is the supervisor's user's alone, or `uid`'s. PageServerError where it cannot be made.
    """
    try:
        listener = _listener(path, below=uid is not None)
    except OSError as error:
        raise PageServerError(f"no VMM can connect at {path}: {error.strerror}") from error
    with listener:
        if uid is not None:
            try:
                os.chown(path, uid, -1, follow_symlinks=False)
            except OSError as error:
                unix_sockets.remove_file(path)
                raise PageServerError(f"uid {uid} cannot be given {path}: {error.strerror}") from error
        yield listener


def _listener(path: Path, *, below: bool) -> socket.socket:
    """Return a listener; `below` its directory's descriptor, since the path in a jail may be longer than sun_path."""
    if not below:
        return unix_sockets.listen(path, _MODE)
    held = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return unix_sockets.listen(Path(f"/proc/self/fd/{held}") / path.name, _MODE)
    finally:
        os.close(held)
