"""Records as they lie on the disk: read in bounded time and memory, whatever lies there, and judged."""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from supervisor.models import NAME_LENGTH, explain, is_id
from supervisor.models.base import NAME_PATTERN
from supervisor.rules.lineage import sources_first
from supervisor.store.layout import INSTANCE_RECORD, TEMPLATE_RECORD, Layout
from supervisor.store.record_checks import (
    fork_conflicts,
    instance_conflicts,
    instance_problem,
    template_conflicts,
    template_problem,
)
from supervisor.store.records import SCHEMA_VERSION, InstanceRecord, Record, TemplateRecord
from supervisor.system.regular_files import read_regular, shown

LARGEST_RECORD: Final = 1 << 20
"""Bytes; a record has some thousand."""

RecordType = TypeVar("RecordType", bound=Record)


@dataclass(frozen=True)
class SetAside:
    """A record by which nothing is done, and what it says of whom it belongs to, as far as that could be read."""

    reason: str
    name: str | None = None
    instance_id: str | None = None


@dataclass(frozen=True)
class Loaded:
    """What a data directory has; what is set aside is by the name of its directory, as text that can be sent."""

    instances: list[InstanceRecord] = field(default_factory=list)
    """In the order in which they were made, sources before their forks; their numbers rise."""
    templates: list[TemplateRecord] = field(default_factory=list)
    unreadable: dict[str, SetAside] = field(default_factory=dict)
    unreadable_templates: dict[str, SetAside] = field(default_factory=dict)


def load(layout: Layout) -> Loaded:
    """Read all records, and set aside those by which nothing may be done."""
    instances = _Found(layout.instances, INSTANCE_RECORD, InstanceRecord)
    templates = _Found(layout.templates, TEMPLATE_RECORD, TemplateRecord)
    instances.set_aside({name: instance_problem(record, name) for name, record in instances.sound.items()})
    templates.set_aside({name: template_problem(record, name) for name, record in templates.sound.items()})
    instances.set_aside(instance_conflicts(tuple(instances.sound.values())))
    templates.set_aside(template_conflicts(tuple(templates.sound.values()), instances.sound))
    instances.set_aside(fork_conflicts(instances.sound.values(), templates.sound))
    return Loaded(
        _in_order(instances.sound.values()),
        list(templates.sound.values()),
        instances.aside,
        templates.aside,
    )


def _in_order(records: Iterable[InstanceRecord]) -> list[InstanceRecord]:
    """Return instances in the order in which they were made, numbered: as far as they have no numbers by their times.

    Those tell it wrong where the clock was set, but never is a fork made before its source.
    """
    oldest = sorted(records, key=lambda record: (record.number, record.created_at, record.id))
    by_id = {record.id: record for record in oldest}
    found: list[InstanceRecord] = []
    number = 0
    for instance_id in sources_first({record.id: record.source_id for record in oldest}):
        record = by_id[instance_id]
        number = max(number + 1, record.number)
        found.append(record if record.number == number else record.model_copy(update={"number": number}))
    return found


class _Found(Generic[RecordType]):
    """The records in the directories below one."""

    def __init__(self, directory: Path, file: str, model: type[RecordType]) -> None:
        self.sound: dict[str, RecordType] = {}
        self.aside: dict[str, SetAside] = {}
        self._directory = directory
        self._file = file
        for path in sorted(directory.iterdir()):
            if not path.name.startswith(".") and (path.is_dir() or path.is_symlink()):
                self._read(path.name, model)

    def set_aside(self, reasons: Mapping[str, str | None]) -> None:
        """Set those aside that there is a reason for."""
        for name, reason in reasons.items():
            if reason is not None:
                self._set_aside(name, reason, self.sound.pop(name).model_dump())

    def _read(self, name: str, model: type[RecordType]) -> None:
        content = b""
        try:
            if (self._directory / name).is_symlink():
                raise ValueError("its directory is a symbolic link: put the directory itself there")
            content = read_whole(self._directory / name / self._file)
            self.sound[name] = model.model_validate_json(content)
        except ValidationError as error:
            self._set_aside(name, _reason(error), _parsed(content))
        except ValueError as error:
            self._set_aside(name, str(error), {})
        except OSError as error:
            self._set_aside(name, error.strerror or str(error), {})

    def _set_aside(self, name: str, reason: str, content: Mapping[str, Any]) -> None:
        told, instance_id = content.get("name"), content.get("instance_id")
        self.aside[shown(name)] = SetAside(
            f"{shown(self._directory / name / self._file)}: {reason}",
            told if isinstance(told, str) and re.fullmatch(NAME_PATTERN, told) and len(told) <= NAME_LENGTH else None,
            instance_id if isinstance(instance_id, str) and is_id(instance_id) else None,
        )


def read_whole(path: Path) -> bytes:
    """Return a record's bytes; raises OSError for what is no regular file, ValueError for more than a record has."""
    try:
        return read_regular(path, LARGEST_RECORD)
    except ValueError as error:
        raise ValueError(f"{error}, and a record has some thousand") from error


def _parsed(content: bytes) -> Mapping[str, Any]:
    """Return the fields of what is no record; none where it is no object."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return {}


def _reason(error: ValidationError) -> str:
    """Return what is wrong with a record in one line; of a newer supervisor's that it is newer, and no detail."""
    problems = error.errors()
    for problem in problems:
        found = problem["input"]
        if problem["loc"] == ("schema_version",) and isinstance(found, int) and found > SCHEMA_VERSION:
            return f"it has schema {found}, and this supervisor knows {SCHEMA_VERSION}: start the newer forktui"
    return explain(problems[0])
