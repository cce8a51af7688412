"""Page servers started: each template's as a user of its own where that can be, with a directory to work in."""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from supervisor.errors import InsufficientResourcesError, PageServerError
from supervisor.models import JailMode
from supervisor.models.base import Report
from supervisor.runtime.page_server_events import PageServerEvents
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.records import TemplateRecord
from supervisor.system import identity
from supervisor.system.regular_files import open_regular
from supervisor.system.sparse_files import created
from supervisor.uffd.confinement import Wanted, confinement_here
from supervisor.uffd.handle import PageServer, Policy


class PageServerUsers(NamedTuple):
    """Whose page servers are."""

    mode: JailMode
    problem: str | None
    """Why those that start now are the supervisor's user's; None where each template's are a user of their own."""
    free_uid: Callable[[], int]
    """Returns a uid that nobody has."""


def page_server_users(mode: JailMode, uids: range, free_uid: Callable[[], int]) -> PageServerUsers:
    """Return whose page servers are to be, where `uids` are those that they may have."""
    return PageServerUsers(mode, _problem(mode, uids), free_uid)


def _problem(mode: JailMode, uids: range) -> str | None:
    if mode == "off":
        return "jails are off: start the supervisor with --jail auto"
    if os.geteuid() != 0:
        return "page servers are confined by root alone: start the supervisor as root"
    if lacking := identity.lacking():
        return f"the supervisor has no {', '.join(lacking)}: start it with all capabilities of root"
    if not identity.maps(uids):
        return "the supervisor's user namespace has not all uids and gids of jail_uids: name others with --jail-uids"
    return None


NO_USERS: Final = page_server_users("off", range(0), lambda: 0)


class PageServerStarts:
    """Starts page servers. Those of one template are one user's, which its record says before there is one."""

    def __init__(
        self,
        inventory: Inventory,
        policy: Policy,
        events: PageServerEvents,
        users: PageServerUsers,
        report: Report,
    ) -> None:
        self._report = report
        self._inventory = inventory
        self._policy = policy
        self._events = events
        self.users = users
        self.confined_by = () if users.problem is not None else confinement_here()
        """What confines those that start now."""

    async def start(self, template: TemplateRecord, layers: Sequence[Path], stderr: int) -> PageServer:
        """Start a template's page server; PageServerError where it does not start, or is to be confined and cannot."""
        layout, whose = self._inventory.layout, self._events.whose(template.id)
        directory, confined = layout.recorded(template.id), await self._wanted(template)
        try:
            await asyncio.to_thread(_make_room, layout, template.id)
        except OSError as error:
            reason = f"its directory {directory} cannot be made: {error.strerror}"
            raise PageServerError(f"page server of {whose} cannot start: {reason}") from error
        try:
            await asyncio.to_thread(_give, layout, template.id, confined)
        except OSError as error:
            told = (
                f"page server of {whose} cannot be confined: {directory} cannot be given to its user: {error.strerror}"
            )
            if self.users.mode == "on":
                raise PageServerError(told) from error
            self._report("warning", told, template.instance_id)
            confined = None
        return await PageServer.spawn(
            template_id=template.id,
            layers=layers,
            memory_size=template.image_bytes,
            page_size=template.page_size,
            hot_pages=layout.hot_pages(template.id),
            control=layout.control_socket(template.id),
            stderr=stderr,
            policy=self._policy,
            on_event=self._events.of(template.id),
            whose=whose,
            confined=confined,
        )

    async def _wanted(self, template: TemplateRecord) -> Wanted | None:
        users = self.users
        if users.problem is not None:
            if users.mode == "on":
                whose = self._events.whose(template.id)
                raise PageServerError(f"page server of {whose} cannot be confined: {users.problem}; or use --jail auto")
            return None
        uid = template.page_server_uid
        if uid is None:
            try:
                uid = users.free_uid()
            except InsufficientResourcesError as error:
                raise PageServerError(f"page server of {self._events.whose(template.id)}: {error.message}") from error
            # Before there is a process: whoever comes after a crash is not to give it to another.
            await self._events.update(template.id, page_server_uid=uid)
        return Wanted(uid, uid, strictly=users.mode == "on")


def _make_room(layout: Layout, template_id: str) -> None:
    """Make a page server's directory, with the hot-page list that is there before any has run; blocks.

    Raises OSError.
    """
    directory, earlier = layout.recorded(template_id), layout.earlier_hot_pages(template_id)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        directory.chmod(0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(0, "it is no directory")
    if status.st_uid != os.geteuid():
        return  # what is in it is somebody else's, and nothing to touch
    place = layout.hot_pages(template_id)
    if os.path.lexists(earlier):
        # A page server of an earlier version has written it, or its image has brought it.
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)
            _copy(earlier, place)
            earlier.unlink()


def _give(layout: Layout, template_id: str, confined: Wanted | None) -> None:
    """Give a page server's directory to its user, and the list in it that is there before; blocks. Raises OSError."""
    directory, place = layout.recorded(template_id), layout.hot_pages(template_id)
    if confined is None:
        return
    if directory.lstat().st_uid == os.geteuid() and os.path.lexists(place):
        # No page server has been here yet: it is what was copied there.
        os.chown(place, confined.uid, confined.gid, follow_symlinks=False)
    os.chown(directory, confined.uid, confined.gid, follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    """Copy a list, which may be an image's as well: the page server's is its own."""
    with os.fdopen(open_regular(source), "rb") as file, created(target) as fd, open(fd, "wb", closefd=False) as copy:
        shutil.copyfileobj(file, copy)
