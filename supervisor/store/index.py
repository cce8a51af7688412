"""The records in memory: by id and by name, and the fork forest over them. It does no I/O."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from supervisor.errors import BadRequestError, InvalidStateError, NameConflictError, NotFoundError
from supervisor.models import is_id
from supervisor.remedies import Remedy
from supervisor.rules.lineage import Descent, Forest, forest
from supervisor.store.record_files import Loaded, SetAside
from supervisor.store.records import InstanceRecord, TemplateRecord

PREFIX_LENGTH: Final = 4
"""The least of an id that means an instance: what is shorter may well be a name whose instance has gone."""


class Index:
    """What there is, and which names are taken."""

    def __init__(self) -> None:
        self.instances: dict[str, InstanceRecord] = {}
        self.templates: dict[str, TemplateRecord] = {}
        self.unreadable: dict[str, SetAside] = {}
        """The instances whose records cannot be read or believed, by the names of their directories."""
        self.unreadable_templates: dict[str, SetAside] = {}
        """The same of templates."""
        self._names: dict[str, set[str]] = {}
        """Whose each name is, or is to be; of several where a record that could not be read was repaired."""
        self._forest: Forest | None = None
        self._last_number = 0

    @property
    def forest(self) -> Forest:
        """The fork forest of the present records."""
        if self._forest is None:
            self._forest = forest(
                Descent(record.id, record.name, record.source_id, record.fork_kind)
                for record in self.instances.values()
            )
        return self._forest

    def fill(self, loaded: Loaded) -> None:
        """Have these and no others; the names of what is set aside are taken."""
        self.instances = {record.id: record for record in loaded.instances}
        self.templates = {record.id: record for record in loaded.templates}
        self.unreadable = loaded.unreadable
        self.unreadable_templates = loaded.unreadable_templates
        self._names = {}
        for directory, one in self.unreadable.items():
            if one.name:
                self._names.setdefault(one.name, set()).add(directory)
        for record in loaded.instances:
            self._names.setdefault(record.name, set()).add(record.id)
        self._forest = None
        self._last_number = max((record.number for record in loaded.instances), default=0)

    def next_number(self) -> int:
        """Return the number of an instance that is being made: greater than that of every other."""
        self._last_number += 1
        return self._last_number

    def problem_of(self, record: InstanceRecord) -> str | None:
        """Return which record that is set aside an instance would need, and why it is."""
        if record.source_id in self.unreadable:
            return f"the record of its source is set aside: {self.unreadable[record.source_id].reason}"
        for template_id, one in self.unreadable_templates.items():
            if template_id == record.template_id or one.instance_id == record.id:
                return f"the record of its template is set aside: {one.reason}"
        return None

    def put(self, record: InstanceRecord) -> None:
        """Take a new instance's record, or one that replaces the record before it."""
        before = self.instances.get(record.id)
        if before is None or (before.source_id, before.fork_kind) != (record.source_id, record.fork_kind):
            self._forest = None
        self.instances[record.id] = record

    def drop(self, record: InstanceRecord) -> None:
        """Have an instance no more; its name is free."""
        self.instances.pop(record.id, None)
        self._free(record.name, record.id)
        self._forest = None

    def resolve(self, reference: str) -> InstanceRecord:
        """Return the instance with this id, else with this name, else with this unique id prefix.

        What has the shape of an id is only ever an id: who has one means that instance, also when it is gone.
        NotFoundError, BadRequestError for several, or InvalidStateError for one whose record is set aside.
        """
        found = self.instances.get(reference)
        if found is not None:
            return found
        if reference in self.unreadable:
            raise self._set_aside(reference, reference)
        named = sorted(self._names.get(reference, ()))
        if is_id(reference):
            raise _no_such_id(reference, named)
        return self._named(reference, named) if named else self._of_prefix(reference)

    def _named(self, name: str, ids: Sequence[str]) -> InstanceRecord:
        sound = [one for one in ids if one in self.instances]
        if len(sound) > 1:
            raise BadRequestError(f"{name}: {len(sound)} instances are named so; give the id ({', '.join(sound[:5])})")
        if sound:
            return self.instances[sound[0]]
        if ids[0] in self.unreadable:
            raise self._set_aside(name, ids[0])
        raise NotFoundError(f"{name}: it is being made, and is not there yet; ask again")

    def _set_aside(self, reference: str, directory: str) -> InvalidStateError:
        return InvalidStateError(
            f"{reference}: nothing is done to it, since its record is set aside: {self.unreadable[directory].reason}; "
            f"repair or remove {directory}, and start the supervisor again"
        )

    def _of_prefix(self, prefix: str) -> InstanceRecord:
        if len(prefix) < PREFIX_LENGTH:
            raise NotFoundError(
                f"{prefix}: no instance has this name; of an id at least {PREFIX_LENGTH} characters have to be given",
                remedy=Remedy.LIST_INSTANCES,
            )
        ids = [one for one in (*self.instances, *self.unreadable) if one.startswith(prefix)]
        if len(ids) == 1:
            return self.resolve(ids[0])
        if ids:
            names = ", ".join(self.instances[one].name if one in self.instances else one for one in ids[:5])
            raise BadRequestError(f"{prefix}: {len(ids)} ids begin so ({names}); give more")
        raise NotFoundError(
            f"{prefix}: no instance has this id, name or unique id prefix", remedy=Remedy.LIST_INSTANCES
        )

    def template_of(self, instance_id: str) -> TemplateRecord | None:
        """Return the template that this instance was promoted to, if it was."""
        return next((template for template in self.templates.values() if template.instance_id == instance_id), None)

    @contextlib.contextmanager
    def reserved(self, name: str, instance_id: str) -> Iterator[None]:
        """Have a name set aside for an instance that the body makes; it is free again where the body does not.

        NameConflictError where another instance has it, or has it for an id.
        """
        if self._is_an_id(name):
            raise NameConflictError(f"{name}: it is an instance's id; choose another name")
        taken = self._names.setdefault(name, {instance_id})
        if instance_id not in taken:
            remedy = "repair the record of that one" if min(taken) in self.unreadable else "delete that one"
            raise NameConflictError(f"{name}: the name is taken by instance {min(taken)}; choose another, or {remedy}")
        try:
            yield
        finally:
            if instance_id not in self.instances:
                self._free(name, instance_id)

    def free_names(self, prefix: str) -> Iterator[str]:
        """Yield `<prefix>-<n>` for each n from 1 that no instance has for a name or an id."""
        number = 0
        while True:
            number += 1
            name = f"{prefix}-{number}"
            if name not in self._names and not self._is_an_id(name):
                yield name

    def _free(self, name: str, instance_id: str) -> None:
        ids = self._names.get(name, set())
        ids.discard(instance_id)
        if not ids:
            self._names.pop(name, None)

    def _is_an_id(self, text: str) -> bool:
        return text in self.instances or text in self.unreadable


def _no_such_id(reference: str, named: Sequence[str]) -> NotFoundError:
    if not named:
        return NotFoundError(f"{reference}: no instance has this id", remedy=Remedy.LIST_INSTANCES)
    own = ", ".join(named)
    return NotFoundError(f"{reference}: no instance has this id; one that is named so is reached by its own: {own}")
