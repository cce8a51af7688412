"""The images that there are, each usable or with what is wrong with it; watched, so that a dropped-in one appears."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from watchfiles import awatch

from supervisor.errors import InvalidImageError
from supervisor.images import boot_image, snapshot_image
from supervisor.images.builtin_image import PAGEWALKER
from supervisor.models import HypervisorName, ImageInfo, ImageKind, Level
from supervisor.models.base import MIB, Report
from supervisor.remedies import Remedy
from supervisor.vmm.hypervisor import Hypervisor

GATHER_MILLISECONDS: Final = 200
"""A directory that is copied in is looked at when nothing has come for so long."""
LOOK_MILLISECONDS: Final = 5000
"""Looked at without being told to, for what inotify could not tell: its queue overflows (inotify(7))."""


class ImageCatalog:
    """Reads the images' directory whenever it is asked, and reports what has changed while it is watched."""

    def __init__(self, directory: Path, hypervisors: Mapping[HypervisorName, Hypervisor], report: Report) -> None:
        self._directory = directory
        self._hypervisors = hypervisors
        self._report = report
        self._stop = asyncio.Event()

    async def images(self) -> list[ImageInfo]:
        """Return every image, the built-in one first."""
        return await asyncio.to_thread(self._read)

    async def watch(self) -> None:
        """Report images that appear, change their condition or go, until told to stop."""
        known = {one.name: one for one in await self.images()}
        for one in known.values():
            if one.error is not None:
                self._report("warning", f"{one.name}: the image cannot be used: {one.error}", None)
        watch = awatch(
            self._directory,
            watch_filter=None,
            debounce=GATHER_MILLISECONDS,
            rust_timeout=LOOK_MILLISECONDS,
            yield_on_timeout=True,
            stop_event=self._stop,
        )
        try:
            async for _ in watch:
                found = {one.name: one for one in await self.images()}
                for level, line in changes(known, found):
                    self._report(level, line, None)
                known = found
        except FileNotFoundError:
            self._report("warning", f"{self._directory} is gone: its images are no longer watched", None)

    def stop(self) -> None:
        """End the watch."""
        self._stop.set()

    def _read(self) -> list[ImageInfo]:
        try:
            entries = sorted(entry for entry in self._directory.iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            entries = []
        found = [self._describe(entry) for entry in entries if entry.is_dir() and entry.name != PAGEWALKER]
        return [self._describe(self._directory / PAGEWALKER), *found]

    def _describe(self, directory: Path) -> ImageInfo:
        kind: ImageKind = "boot"
        size, error, hypervisor = None, None, None
        try:
            if directory.name != PAGEWALKER and snapshot_image.is_snapshot(directory):
                kind = "snapshot"
                snapshot = snapshot_image.load_snapshot(directory)
                size, hypervisor = snapshot.size_bytes, snapshot.hypervisor
                self._check(snapshot)
            else:
                image = boot_image.load_image(self._directory, directory.name)
                size = image.config.machine_config.mem_size_mib * MIB
        except InvalidImageError as problem:
            error = " ".join(problem.message.split())
        try:
            made = directory.stat().st_mtime
        except OSError:
            made = 0
        return ImageInfo(
            name=directory.name,
            status="failed" if error else "ready",
            error=error,
            created_at=datetime.fromtimestamp(made, UTC),
            kind=kind,
            hypervisor=hypervisor,
            memory_bytes=size,
        )

    def _check(self, snapshot: snapshot_image.SnapshotImage) -> None:
        hypervisor = self._hypervisors.get(snapshot.hypervisor)
        if hypervisor is None:
            raise InvalidImageError(
                f"image {snapshot.name} is a snapshot of {snapshot.hypervisor}, which cannot run here",
                remedy=Remedy.READ_CAPABILITIES,
            )
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
