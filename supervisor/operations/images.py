"""Images that are built, added and removed."""

import asyncio
import contextlib
import errno
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from supervisor.concurrency.progress import advance, counted, interruptible, step
from supervisor.errors import (
    BadRequestError,
    InvalidStateError,
    NameConflictError,
    NotFoundError,
    StorageError,
    check_descriptors,
)
from supervisor.images import adding, boot_image, building, snapshot_image
from supervisor.images.builtin_image import PAGEWALKER
from supervisor.images.disk_room import DiskRoom
from supervisor.images.threads import ImageThreads
from supervisor.models import BuildImageRequest, HypervisorName, MadeImage
from supervisor.operations.image_users import ImageUsers
from supervisor.operations.in_progress import InProgress
from supervisor.remedies import Remedy
from supervisor.store.layout import Layout, deleted, staged
from supervisor.store.registry import sync_directory
from supervisor.system.regular_files import discard
from supervisor.vmm.hypervisor import Hypervisor

BUILD: Final = "image build"
ADD: Final = "image add"
REMOVE: Final = "image rm"
DIRECTORY: Final = "directory"
MOST_BYTES: Final = {"kernel": 1 << 30, "config": 4 << 20, "initrd": 1 << 30, "modules": 2 << 30}
"""Of what is given; a root, or a directory, may have what the disk has room for."""
_WRITTEN: Final = 1 << 20


Result = TypeVar("Result")


class Part(NamedTuple):
    """A file that is given: what it is, and its bytes as they come."""

    name: str
    data: AsyncIterator[bytes]


class Images:
    """Makes images in a directory that no other looks at, and gives it its name once all is there and usable."""

    def __init__(
        self,
        layout: Layout,
        in_progress: InProgress,
        users: ImageUsers,
        threads: ImageThreads,
        hypervisors: Mapping[HypervisorName, Hypervisor | str],
    ) -> None:
        self._layout = layout
        self._in_progress = in_progress
        self._users = users
        self._threads = threads
        self._hypervisors = hypervisors

    async def build(self, request: BuildImageRequest, parts: AsyncIterator[Part], bytes_told: int | None) -> MadeImage:
        """Make an image of a kernel, perhaps an initrd, and a root; `bytes_told` is how many are to come."""
        async with self._making(request.name, BUILD) as staging:
            files = await self._receive(request.name, parts, building.PARTS, staging.path, bytes_told)
            building.check(request, files)
            firecracker = self._hypervisors["firecracker"]
            version = None if isinstance(firecracker, str) else firecracker.version
            given = building.Given(request, files, version, self._room(request.name))
            return await self._work(staging, partial(building.build, given, staging.made))

    async def add(self, name: str, parts: AsyncIterator[Part], bytes_told: int | None) -> MadeImage:
        """Make an image of a directory that is ready."""
        async with self._making(name, ADD) as staging:
            files = await self._receive(name, parts, (DIRECTORY,), staging.path, bytes_told)
            step("unpack")
            await self._work(staging, partial(adding.unpack, name, files[DIRECTORY], staging.made, self._room(name)))
            return MadeImage(name=name)

    async def remove(self, name: str) -> None:
        """Remove an image of which there is no instance: where one came from is not taken from under it."""
        if name == PAGEWALKER:
            raise InvalidStateError(f"image {PAGEWALKER}: {REMOVE} refused: it is built in")
        if not boot_image.is_name(name):
            raise _unknown(name)
        with self._users.changing(name, REMOVE), self._in_progress.begin(REMOVE, "", name):
            self._users.check_unused(name, REMOVE)
            await asyncio.to_thread(_remove, self._layout.image(name))

    @contextlib.asynccontextmanager
    async def _making(self, name: str, verb: str) -> AsyncIterator["_Staging"]:
        """Give what becomes the image once the body has filled it."""
        if not boot_image.is_name(name):
            why = f"{boot_image.NAME_RULE}, and {PAGEWALKER} is taken"
            raise BadRequestError(f"image {name[:64]!r}: {verb} refused: {why}")
        with self._users.changing(name, verb), self._in_progress.begin(verb, "", name) as operation:
            staging = _Staging(self._layout.image(name), verb)
            try:
                await asyncio.to_thread(staging.make)
                yield staging
                await self._work(staging, partial(snapshot_image.load, staging.path, name))
                operation.check()
                await asyncio.to_thread(staging.commit)
            except TimeoutError as error:
                raise StorageError(
                    f"image {name}: it cannot be made: {error} of the data directory's disk; try again once it answers"
                ) from error
            except OSError as error:
                check_descriptors(error, f"image {name}")
                why = error.strerror or str(error)
                raise StorageError(
                    f"image {name}: it cannot be made: {why}; free space or make the data directory writable"
                ) from error
            finally:
                await asyncio.shield(asyncio.to_thread(staging.discard))

    async def _receive(
        self, name: str, parts: AsyncIterator[Part], wanted: Sequence[str], staging: Path, told: int | None
    ) -> dict[str, Path]:
        """Return the files that were given, by what they are."""
        step("receive")
        files: dict[str, Path] = {}
        with counted(told, "bytes") if told else contextlib.nullcontext():
            async for part in parts:
                if part.name not in wanted or part.name in files:
                    raise BadRequestError(
                        f"image {name}: the part {part.name[:64]!r} is not read, or is given twice; parts are "
                        f"{', '.join(wanted)}"
                    )
                files[part.name] = path = staging / part.name
                most = MOST_BYTES.get(part.name)
                await _write(part.data, path, self._room(f"{name}: {part.name}"), most, f"image {name}: {part.name}")
        missing = [one for one in wanted[:1] if one not in files]
        if missing:
            raise BadRequestError(f"image {name}: the part {missing[0]} is missing; give it")
        return files

    def _room(self, subject: str) -> DiskRoom:
        return DiskRoom(f"image {subject}", self._layout.images)

    async def _work(self, staging: "_Staging", work: Callable[[], Result]) -> Result:
        """Return what is done in a thread that may be cancelled, and that is given up where it stands still."""
        made: list[Result] = []
        await self._threads.write(staging.made.name, lambda: made.append(staging.filled(work)))
        return made[0]


class _Staging:
    """One attempt at an image: a directory of its own, which goes with it, though a thread may go on to write there."""

    def __init__(self, directory: Path, verb: str) -> None:
        self._directory = directory
        self._verb = verb
        self.path = staged(directory.with_name(f"{directory.name}-{secrets.token_hex(4)}"))
        """Of what is received."""
        self.made = self.path / directory.name
        """Of what is to be the image."""
        self._over = False
        self._changing = threading.Lock()

    def make(self) -> None:
        """Make the directories; raises NameConflictError where there is an image of this name."""
        if os.path.lexists(self._directory):
            raise self._taken()
        with self._changing:
            if not self._over:
                self.path.mkdir(mode=0o750)
                self.made.mkdir(mode=0o750)

    def filled(self, work: Callable[[], Result]) -> Result:
        """Return what is done there; whoever has given that up meanwhile has it removed behind it."""
        try:
            return work()
        finally:
            if self._over:
                self.discard()

    def commit(self) -> None:
        """Give the image its name; raises NameConflictError where somebody else has done that meanwhile."""
        step("commit")
        with self._changing:
            sync_directory(self.made)
            try:
                self.made.rename(self._directory)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise self._taken() from error
                raise
            sync_directory(self._directory.parent)

    def discard(self) -> None:
        """Remove what is left of it."""
        self._over = True
        with self._changing:
            _discard(self.path)

    def _taken(self) -> NameConflictError:
        return NameConflictError(
            f"image {self._directory.name}: {self._verb} refused: there is one; remove it, or name another"
        )


async def _write(data: AsyncIterator[bytes], path: Path, room: DiskRoom, most: int | None, subject: str) -> None:
    """Write what comes to a new file; `most` bytes of it are read."""
    written, waiting = 0, bytearray()

    def write() -> None:
        room.take(len(waiting))
        file.write(waiting)
        waiting.clear()

    file = await asyncio.to_thread(path.open, "xb")
    try:
        while True:
            with interruptible():
                piece = await anext(data, b"")
            waiting += piece
            written += len(piece)
            advance(len(piece))
            if most is not None and written > most:
                raise BadRequestError(f"{subject}: it has more than {most >> 20} MiB, the most that is read")
            if waiting and (not piece or len(waiting) >= _WRITTEN):
                await asyncio.to_thread(write)
            if not piece:
                return
    finally:
        await asyncio.shield(asyncio.to_thread(file.close))


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"image {name[:64]!r}: there is none of this name", remedy=Remedy.LIST_IMAGES)


def _discard(staging: Path) -> None:
    with contextlib.suppress(OSError):
        discard(staging)


def _remove(directory: Path) -> None:
    """Remove an image's directory, or the link to it."""
    if not os.path.lexists(directory):
        raise _unknown(directory.name)
    try:
        if directory.is_symlink():
            directory.unlink()
            return
        gone = deleted(directory)
        discard(gone)
        directory.rename(gone)
        step("remove files")
        _discard(gone)
    except OSError as error:
        raise StorageError(
            f"image {directory.name}: it cannot be removed: {error.strerror}; make the data directory writable"
        ) from error
