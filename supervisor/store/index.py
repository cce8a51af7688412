"""The records in memory: by id and by name, and the fork forest over them. It does no I/O."""

import contextlib
from collections.abc import Iterator, Sequence

from supervisor.errors import BadRequestError, NameConflictError, NotFoundError
from supervisor.remedies import Remedy
from supervisor.rules.lineage import Descent, Forest, forest
from supervisor.store.records import InstanceRecord, TemplateRecord


class Index:
    """What there is, and which names are taken."""

    def __init__(self) -> None:
        self.instances: dict[str, InstanceRecord] = {}
        self.templates: dict[str, TemplateRecord] = {}
        self.unreadable: dict[str, str] = {}
        """Why each other instance's record cannot be read, by the name of its directory."""
        self._names: dict[str, str] = {}
        self._forest: Forest | None = None

    @property
    def forest(self) -> Forest:
        """The fork forest of the present records."""
        if self._forest is None:
            self._forest = forest(
                Descent(record.id, record.name, record.source_id, record.fork_kind)
                for record in self.instances.values()
            )
        return self._forest

    def fill(
        self, instances: Sequence[InstanceRecord], templates: Sequence[TemplateRecord], unreadable: dict[str, str]
    ) -> None:
        """Have these and no others."""
        self.instances = {record.id: record for record in instances}
        self.templates = {record.id: record for record in templates}
        self.unreadable = unreadable
        self._names = {record.name: record.id for record in instances}
        self._forest = None

    def put(self, record: InstanceRecord) -> None:
        """Take a new instance's record, or one that replaces the record before it."""
        before = self.instances.get(record.id)
        if before is None or (before.source_id, before.fork_kind) != (record.source_id, record.fork_kind):
            self._forest = None
        self.instances[record.id] = record

    def drop(self, record: InstanceRecord) -> None:
        """Have an instance no more; its name is free."""
        self.instances.pop(record.id, None)
        self._names.pop(record.name, None)
        self._forest = None

    def resolve(self, reference: str) -> InstanceRecord:
        """Return the instance with this id, name or unique id prefix; NotFoundError, or BadRequestError for several."""
        found = self.instances.get(self._names.get(reference, reference))
        if found is not None:
            return found
        matches = [record for record in self.instances.values() if reference and record.id.startswith(reference)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(record.name for record in matches[:5])
            raise BadRequestError(f"{reference}: {len(matches)} ids begin so ({names}); give more")
        raise NotFoundError(
            f"{reference}: no instance has this id, name or unique id prefix", remedy=Remedy.LIST_INSTANCES
        )

    def template_of(self, instance_id: str) -> TemplateRecord | None:
        """Return the template that this instance was promoted to, if it was."""
        return next((template for template in self.templates.values() if template.instance_id == instance_id), None)

    @contextlib.contextmanager
    def reserved(self, name: str, instance_id: str) -> Iterator[None]:
        """Have a name set aside for an instance that the body makes; it is free again where the body does not.

        NameConflictError where another instance has it.
        """
        taken = self._names.setdefault(name, instance_id)
        if taken != instance_id:
            raise NameConflictError(
                f"{name}: the name is taken by instance {taken}; choose another, or delete that one"
            )
        try:
            yield
        finally:
            if instance_id not in self.instances and self._names.get(name) == instance_id:
                del self._names[name]

    def free_names(self, prefix: str) -> Iterator[str]:
        """Yield `<prefix>-<n>` for each n from 1 that no instance is named after."""
        number = 0
        while True:
            number += 1
            if f"{prefix}-{number}" not in self._names:
                yield f"{prefix}-{number}"
