"""Durable records: one JSON file in a directory of its own for each instance and template."""

import contextlib
import errno
import logging
import os
import secrets
import string
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.concurrency.progress import step
from supervisor.errors import StorageError
from supervisor.models import ID_LENGTH
from supervisor.rules.lineage import Link
from supervisor.store.layout import (
    DELETED,
    INSTANCE_RECORD,
    METADATA,
    STAGED,
    TEMPLATE_RECORD,
    Layout,
    deleted,
    partial_record,
    staged,
)
from supervisor.store.record_files import Loaded, load
from supervisor.store.records import InstanceRecord, Record, TemplateRecord
from supervisor.system.regular_files import remove_tree
from supervisor.system.same_file import is_at
from supervisor.system.sparse_files import allocated

_log = logging.getLogger(__name__)


def new_id() -> str:
    """Return an id: its shape is that of `is_id`, which no name has."""
    rest = string.ascii_lowercase + string.digits
    return secrets.choice(string.ascii_lowercase) + "".join(secrets.choice(rest) for _ in range(ID_LENGTH - 1))


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` durable: fsync(2) of a file does not cover its directory entry."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _synced(directory: Path) -> Iterator[None]:
    """Make the renames of the body durable; what is needed for that is had before it begins.

    Once they are done nothing fails any more: they are so for all that this host has running.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
        try:
            os.fsync(fd)
        except OSError as error:
            _log.error("%s: what was renamed may be lost when the host crashes: %s", directory, error.strerror)
    finally:
        os.close(fd)


def write_atomically(target: Path, data: bytes) -> None:
    """Replace `target` with `data` so that a crash leaves the old content or the new, never a part.

    Raises StorageError where the file system refuses.
    """
    temporary = partial_record(target)
    try:
        step("write record")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with _synced(target.parent):
            step("replace record")
            temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StorageError(f"{target}: cannot be written: {error.strerror}; {_remedy(error)}") from error


class Registry:
    """The records under one data directory; every method blocks on the disk."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def open(self) -> None:
        """Create the directories and sweep what a crash left half made or half removed."""
        try:
            for directory in (self.layout.instances, self.layout.templates, self.layout.images):
                directory.mkdir(parents=True, exist_ok=True)
                for half in (*directory.glob(f"{DELETED}*"), *directory.glob(f"{STAGED}*")):
                    _remove_all(half)
        except OSError as error:
            raise StorageError(
                f"{error.filename}: {error.strerror}; choose another --data-dir or make it writable"
            ) from error

    def stage_instance(self, instance_id: str, populate: Callable[[Path], None]) -> None:
        """Make the directory in which `create_instance` finds what `populate` puts there; raises StorageError."""
        directory = self.layout.instance(instance_id)
        with _made_wholly(directory):
            step("stage files")
            staged(directory).mkdir(mode=0o750)
            populate(staged(directory))

    def unstage_instance(self, instance_id: str) -> None:
        """Remove what was staged of an instance that comes to nothing, if there is any."""
        _remove_all(staged(self.layout.instance(instance_id)))

    def create_instance(self, record: InstanceRecord, populate: Callable[[Path], None]) -> None:
        """Make the instance's directory with what `populate` puts there and its first record: all of it or nothing.

        `populate` gets the directory under its staged name, in which there may be files already.
        """
        _create(self.layout.instance(record.id), INSTANCE_RECORD, record, populate)

    def create_template(self, record: TemplateRecord, populate: Callable[[Path], None]) -> None:
        """Make the template's directory with what `populate` puts there and its first record: all of it or nothing."""
        _create(self.layout.template(record.id), TEMPLATE_RECORD, record, populate)

    def save_instance(self, record: InstanceRecord) -> None:
        """Replace the instance's record durably."""
        write_atomically(self.layout.instance(record.id) / INSTANCE_RECORD, _encoded(record))

    def save_template(self, record: TemplateRecord) -> None:
        """Replace the template's record durably."""
        write_atomically(self.layout.template(record.id) / TEMPLATE_RECORD, _encoded(record))

    def mark_deleted(self, instance_id: str) -> None:
        """Give the instance's directory a name by which it is gone, for whoever comes after a crash."""
        _mark_deleted(self.layout.instance(instance_id))

    def unmark_deleted(self, instance_id: str) -> None:
        """Undo `mark_deleted`."""
        directory = self.layout.instance(instance_id)
        deleted(directory).rename(directory)
        sync_directory(directory.parent)

    def remove_instance(self, instance_id: str) -> None:
        """Remove the instance's directory with all that is in it."""
        _remove(self.layout.instance(instance_id))

    def remove_template(self, template_id: str) -> None:
        """Remove the template's directory with all that is in it."""
        _remove(self.layout.template(template_id))

    def links(self, instance_id: str, template_id: str | None) -> list[Link]:
        """Return what is in the directories of an instance and of its template; what goes meanwhile is left out."""
        directories = [self.layout.instance(instance_id)]
        if template_id is not None:
            directories.append(self.layout.template(template_id))
        jail = self.layout.jail_root(instance_id)
        return [link for directory in directories for link in _links(directory, jail)]

    def load(self) -> Loaded:
        """Return every record, and what is set aside; sound records' half-written successors are swept."""
        loaded = load(self.layout)
        directories = [
            *(self.layout.instance(record.id) for record in loaded.instances),
            *(self.layout.template(record.id) for record in loaded.templates),
        ]
        for directory in directories:
            for name in (INSTANCE_RECORD, TEMPLATE_RECORD, METADATA):
                with contextlib.suppress(OSError):
                    partial_record(directory / name).unlink()
        return loaded


def nothing_more(directory: Path) -> None:
    """Put nothing into a directory in which all that belongs there was staged."""


def _create(directory: Path, name: str, record: Record, populate: Callable[[Path], None]) -> None:
    staging = staged(directory)
    with _made_wholly(directory):
        step("stage files")
        staging.mkdir(mode=0o750, exist_ok=True)
        populate(staging)
        write_atomically(staging / name, _encoded(record))
        with _synced(directory.parent):
            step("commit")
            staging.rename(directory)


@contextlib.contextmanager
def _made_wholly(directory: Path) -> Iterator[None]:
    """Have nothing left of what the body stages where it fails; raises StorageError for OSError."""
    try:
        yield
    except OSError as error:
        _remove_all(staged(directory))
        raise StorageError(f"{directory}: cannot be created: {error.strerror}; {_remedy(error)}") from error
    except BaseException:
        _remove_all(staged(directory))
        raise


def _remove_all(directory: Path) -> None:
    """Remove a directory with what is in it, as far as the file system lets; the next supervisor tries the rest."""
    with contextlib.suppress(OSError):
        remove_tree(directory)


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files"
    return "free space or make the data directory writable"


def _encoded(record: Record) -> bytes:
    return record.model_dump_json(indent=1).encode() + b"\n"


def _mark_deleted(directory: Path) -> None:
    try:
        directory.rename(deleted(directory))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(
            f"{directory}: cannot be removed: {error.strerror}; make the data directory writable"
        ) from error
    # The name is taken from here on, for all that this host has running; only its own crash may bring it back.
    with contextlib.suppress(OSError):
        sync_directory(directory.parent)


def _remove(directory: Path) -> None:
    _mark_deleted(directory)
    step("remove files")
    _remove_all(deleted(directory))


def _links(directory: Path, jail: Path) -> Iterator[Link]:
    """Yield the names in a directory, and those that the same have in a jail, in which more is another's doing."""
    # Not by os.walk, which calls itself for each directory: a program may have made them deeper than that goes.
    pending = [os.fspath(directory)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    link = Link((status.st_dev, status.st_ino), status.st_nlink, allocated(status))
                    yield from (link,) * (2 if is_at(jail / os.path.relpath(entry.path, directory), status) else 1)
