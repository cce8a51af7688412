"""The images that there are, each usable or with what is wrong with it; watched, so that a dropped-in one appears."""

import asyncio
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from supervisor.errors import DependencyMissingError, InvalidImageError
from supervisor.images import boot_image, builtin_image, snapshot_image
from supervisor.images.builtin_image import PAGEWALKER
from supervisor.images.threads import ImageThreads
from supervisor.models import HypervisorName, ImageInfo, ImageKind, Level
from supervisor.models.base import MIB, Report
from supervisor.system.regular_files import shown
from supervisor.system.watching import Watch
from supervisor.vmm.hypervisor import Hypervisor, usable

GATHER_SECONDS: Final = 0.2
"""A directory that is copied in is looked at some time after it has appeared, and again when more has."""
LOOK_SECONDS: Final = 5.0
"""Looked at without being told to, for what inotify could not tell: its queue overflows (inotify(7))."""
MOST_IMAGES: Final = 1000
"""Directories in images/ that are read, those first that have a name by which one can be asked for."""

_log = logging.getLogger(__name__)


class Entries(NamedTuple):
    """The names of the directories in images/, as the file system has them, and why those are not all."""

    names: tuple[str, ...] = ()
    problem: str | None = None


class ImageCatalog:
    """Reads the images' directory whenever it is asked, and reports what has changed while it is watched.

    Others write there: it is read in the threads that were given for that, and what cannot be read is told of the image
    that it concerns.
    """

    def __init__(
        self,
        directory: Path,
        hypervisors: Mapping[HypervisorName, Hypervisor | str],
        report: Report,
        threads: ImageThreads,
    ) -> None:
        self._directory = directory
        self._hypervisors = hypervisors
        self._report = report
        self._threads = threads
        self._watching: asyncio.Task[None] | None = None
        self._stopped = False

    async def images(self) -> list[ImageInfo]:
        """Return every image, the built-in one first."""
        return await self._described(await self._entries())

    async def watch(self) -> None:
        """Report images that appear, change their condition or go, until told to stop."""
        if self._stopped:
            # A host may be closed before this has begun.
            return
        self._watching = asyncio.create_task(self._watch())
        await asyncio.gather(self._watching, return_exceptions=True)

    def stop(self) -> None:
        """End the watch, also one that has not begun."""
        self._stopped = True
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        watch, known, told = Watch(), dict[str, ImageInfo](), None
        begun = False
        try:
            while True:
                try:
                    entries = await self._entries(watch)
                    found = {one.name: one for one in await self._described(entries, watch)}
                    watch.keep((self._directory, *(self._directory / name for name in entries.names)))
                except Exception:
                    # Of one look: the next is made all the same.
                    _log.exception("a look at %s failed", self._directory)
                else:
                    self._tell(known, found, begun)
                    if entries.problem is not None and entries.problem != told:
                        self._report("warning", f"{shown(self._directory)}: {entries.problem}", None)
                    known, told, begun = found, entries.problem, True
                await watch.wait(LOOK_SECONDS, GATHER_SECONDS)
        finally:
            watch.close()

    def _tell(self, known: Mapping[str, ImageInfo], found: Mapping[str, ImageInfo], begun: bool) -> None:
        for level, line in changes(known, found):
            # What is usable from the start is no news.
            if begun or level != "info":
                self._report(level, line, None)

    async def _entries(self, watch: Watch | None = None) -> Entries:
        try:
            return await self._threads.read("images/", partial(self._list, watch))
        except OSError as error:
            # A TimeoutError has its own words.
            return Entries(problem=f"no image in it can be used: {error.strerror or error}")

    def _list(self, watch: Watch | None) -> Entries:
        if watch is not None:
            watch.add(self._directory)
        return _listed(self._directory)

    async def _described(self, entries: Entries, watch: Watch | None = None) -> list[ImageInfo]:
        found = await asyncio.gather(*(self._describe(name, watch) for name in (PAGEWALKER, *entries.names)))
        return [one for one in found if one is not None]

    async def _describe(self, name: str, watch: Watch | None) -> ImageInfo | None:
        try:
            return await self._threads.read_image(name, partial(self._read, name, watch))
        except InvalidImageError as error:
            return _failed(name, error.message)
        except Exception as error:
            _log.exception("image %s cannot be read", shown(name))
            return _failed(name, f"image {shown(name)}: it cannot be read: {type(error).__name__}")

    def _read(self, name: str, watch: Watch | None) -> ImageInfo | None:
        """Return an image by the name of its directory; None where that is none. Blocks.

        Its directory is watched from before it is read, by who may hang there: no other image waits for that.
        """
        directory = builtin_image.directory() if name == PAGEWALKER else self._directory / name
        if name != PAGEWALKER:
            if watch is not None:
                watch.add(directory)
            if not directory.is_dir():
                return None
        kind: ImageKind = "boot"
        size, error, hypervisor = None, None, None
        try:
            if boot_image.is_name(name) and snapshot_image.is_snapshot(directory):
                kind = "snapshot"
            image = snapshot_image.load(self._directory, name)
            if isinstance(image, snapshot_image.SnapshotImage):
                size, hypervisor = image.size_bytes, image.hypervisor
                self._check(image)
            else:
                size = image.config.machine_config.mem_size_mib * MIB
        except InvalidImageError as problem:
            error = " ".join(problem.message.split())
        return ImageInfo(
            name=shown(name),
            status="failed" if error else "ready",
            error=error,
            created_at=_made(directory),
            kind=kind,
            hypervisor=hypervisor,
            memory_bytes=size,
        )

    def _check(self, snapshot: snapshot_image.SnapshotImage) -> None:
        try:
            hypervisor = usable(self._hypervisors, snapshot.hypervisor)
        except DependencyMissingError as error:
            raise InvalidImageError(
                f"image {snapshot.name} is a snapshot of {snapshot.hypervisor}: {error.message}"
            ) from error
        snapshot_image.check_snapshot(snapshot, hypervisor)


def changes(before: Mapping[str, ImageInfo], after: Mapping[str, ImageInfo]) -> list[tuple[Level, str]]:
    """Return a line for each image that is new, gone, or differs in what is wrong with it. Pure."""
    lines: list[tuple[Level, str]] = [("info", f"{name}: the image is gone") for name in before if name not in after]
    for name, one in after.items():
        old = before.get(name)
        if one.error is not None and (old is None or old.error != one.error):
            lines.append(("warning", f"{name}: the image cannot be used: {one.error}"))
        elif one.error is None and (old is None or old.error is not None):
            what = "a snapshot" if one.kind == "snapshot" else "an image"
            lines.append(("info", f"{name}: {what} to make instances from"))
    return lines


def _listed(directory: Path) -> Entries:
    """Return which directories there are; a link may be one, which is looked at by who reads it. Raises OSError."""
    with os.scandir(directory) as entries:
        found = [
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and (entry.is_dir(follow_symlinks=False) or entry.is_symlink())
        ]
    names = sorted({*found} - {PAGEWALKER}, key=lambda name: (not boot_image.is_name(name), name))
    problem = None
    if len(names) > MOST_IMAGES:
        problem = f"it has {len(names)} directories, and {MOST_IMAGES} are looked at: remove what is no image"
    return Entries(tuple(sorted(names[:MOST_IMAGES])), problem)


def _made(directory: Path) -> datetime:
    try:
        return datetime.fromtimestamp(directory.stat().st_mtime, UTC)
    except (OSError, ValueError, OverflowError):
        # A file system may have times that no calendar of Python's has.
        return datetime.fromtimestamp(0, UTC)


def _failed(name: str, error: str) -> ImageInfo:
    return ImageInfo(
        name=shown(name),
        status="failed",
        error=error,
        created_at=datetime.fromtimestamp(0, UTC),
        kind="boot",
        hypervisor=None,
        memory_bytes=None,
    )
