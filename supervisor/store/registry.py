"""Durable records: one JSON file in a directory of its own for each instance and template."""

import contextlib
import errno
import logging
import os
import secrets
import shutil
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from supervisor.concurrency.progress import step
from supervisor.errors import StorageError as StorageError
from supervisor.rules.lineage import Link
from supervisor.store.records import SCHEMA_VERSION, InstanceRecord, Record, TemplateRecord

RecordType = TypeVar("RecordType", bound=Record)

_log = logging.getLogger(__name__)

ID_LENGTH = 24
DOOMED = ".deleted-"
"""What a directory is renamed to before it is removed, so that a crash leaves either all of it or a name to sweep."""
PARTIAL = ".new"
"""What the name of a file ends with until all of it is on the disk."""
UNBORN = ".new-"
"""What a directory is called until all of it is there, for the same reason."""


def new_id() -> str:
    """Return an id: 24 lowercase alphanumerics, the first a letter."""
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
    temporary = target.with_name(f".{target.name}{PARTIAL}")
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

    def __init__(self, data_dir: Path) -> None:
        self.instances = data_dir / "instances"
        self.templates = data_dir / "templates"
        self.images = data_dir / "images"

    def open(self) -> None:
        """Create the directories and sweep what a crash left half made or half removed."""
        try:
            for directory in (self.instances, self.templates, self.images):
                directory.mkdir(parents=True, exist_ok=True)
                for partial in (*directory.glob(f"{DOOMED}*"), *directory.glob(f"{UNBORN}*")):
                    shutil.rmtree(partial, ignore_errors=True)
                for record in directory.glob(f"*/.*.json{PARTIAL}"):
                    record.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"{error.filename}: {error.strerror}; choose another --data-dir or make it writable"
            ) from error

    def directory(self, record_id: str) -> Path:
        """Return the directory of an instance."""
        return self.instances / record_id

    def unborn_directory(self, record_id: str) -> Path:
        """Return the directory in which an instance may have files before `create_instance`; a crash sweeps it."""
        return self.instances / f"{UNBORN}{record_id}"

    def template_directory(self, template_id: str) -> Path:
        """Return the directory of a template."""
        return self.templates / template_id

    def create_instance(self, record: InstanceRecord, populate: Callable[[Path], None]) -> None:
        """Make the instance's directory with what `populate` puts there and its first record: all of it or nothing."""
        _create(self.directory(record.id), "instance.json", record, populate)

    def create_template(self, record: TemplateRecord, populate: Callable[[Path], None]) -> None:
        """Make the template's directory with what `populate` puts there and its first record: all of it or nothing."""
        _create(self.template_directory(record.id), "template.json", record, populate)

    def save_instance(self, record: InstanceRecord) -> None:
        """Replace the instance's record durably."""
        write_atomically(self.directory(record.id) / "instance.json", _encoded(record))

    def save_template(self, record: TemplateRecord) -> None:
        """Replace the template's record durably."""
        write_atomically(self.template_directory(record.id) / "template.json", _encoded(record))

    def doom_instance(self, instance_id: str) -> None:
        """Give the instance's directory a name by which it is gone, for whoever comes after a crash."""
        _doom(self.directory(instance_id))

    def reprieve_instance(self, instance_id: str) -> None:
        """Undo `doom_instance`."""
        directory = self.directory(instance_id)
        directory.with_name(f"{DOOMED}{directory.name}").rename(directory)
        sync_directory(directory.parent)

    def remove_instance(self, instance_id: str) -> None:
        """Remove the instance's directory with all that is in it."""
        _doom(self.directory(instance_id))
        _remove(self.directory(instance_id))

    def remove_template(self, template_id: str) -> None:
        """Remove the template's directory with all that is in it."""
        _doom(self.template_directory(template_id))
        _remove(self.template_directory(template_id))

    def links(self, instance_id: str, template_id: str | None) -> list[Link]:
        """Return what is in the directories of an instance and of its template; what goes meanwhile is left out."""
        directories = [self.directory(instance_id)]
        if template_id is not None:
            directories.append(self.template_directory(template_id))
        return [link for directory in directories for link in _links(directory)]

    def load(self) -> "tuple[list[InstanceRecord], list[TemplateRecord], dict[str, str]]":
        """Return every instance and template, and why each other instance's record cannot be read, by its directory."""
        unreadable: dict[str, str] = {}
        instances: list[InstanceRecord] = []
        for name, found in _records(self.instances, "instance.json", InstanceRecord):
            if isinstance(found, InstanceRecord):
                instances.append(found)
            else:
                unreadable[name] = str(found)
        templates: list[TemplateRecord] = []
        for _, found_template in _records(self.templates, "template.json", TemplateRecord):
            if isinstance(found_template, TemplateRecord):
                templates.append(found_template)
            else:
                _log.error("a template's record is set aside: %s", found_template)
        instances.sort(key=lambda record: record.created_at)
        return instances, templates, unreadable


def _create(directory: Path, name: str, record: Record, populate: Callable[[Path], None]) -> None:
    unborn = directory.with_name(f"{UNBORN}{directory.name}")
    try:
        step("populate")
        unborn.mkdir(mode=0o750, exist_ok=True)
        populate(unborn)
        write_atomically(unborn / name, _encoded(record))
        with _synced(directory.parent):
            step("bear")
            unborn.rename(directory)
    except OSError as error:
        shutil.rmtree(unborn, ignore_errors=True)
        raise StorageError(f"{directory}: cannot be created: {error.strerror}; {_remedy(error)}") from error
    except BaseException:
        shutil.rmtree(unborn, ignore_errors=True)
        raise


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files"
    return "free space or make the data directory writable"


def _encoded(record: Record) -> bytes:
    return record.model_dump_json(indent=1).encode() + b"\n"


def _doom(directory: Path) -> None:
    try:
        directory.rename(directory.with_name(f"{DOOMED}{directory.name}"))
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
    step("remove files")
    shutil.rmtree(directory.with_name(f"{DOOMED}{directory.name}"), ignore_errors=True)


def _links(directory: Path) -> Iterator[Link]:
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - one of thousands
            except FileNotFoundError:
                continue
            # st_blocks counts 512 bytes whatever the file system's blocks are: stat(2).
            yield Link((status.st_dev, status.st_ino), status.st_nlink, status.st_blocks * 512)


def _records(directory: Path, name: str, model: type[RecordType]) -> Iterator[tuple[str, RecordType | str]]:
    for entry in sorted(directory.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        try:
            yield entry.name, model.model_validate_json((entry / name).read_bytes())
        except ValidationError as error:
            yield entry.name, f"{entry / name}: {_reason(error)}"
        except OSError as error:
            yield entry.name, f"{entry / name}: {error.strerror}"


def _reason(error: ValidationError) -> str:
    """Return what is wrong with a record in one line; of a newer supervisor's that it is newer, and no detail."""
    problems = error.errors()
    for problem in problems:
        found = problem["input"]
        if problem["loc"] == ("schema_version",) and isinstance(found, int) and found > SCHEMA_VERSION:
            return f"it has schema {found}, and this supervisor knows {SCHEMA_VERSION}: start the newer forktui"
    where = ".".join(str(part) for part in problems[0]["loc"]) or "the file"
    return f"{where}: {problems[0]['msg']}"
