"""What the supervisor owns, in memory: records by id and name, the forest over them, and their view on the wire."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.concurrency import progress
from supervisor.errors import BadRequestError, NameConflictError, NotFoundError
from supervisor.models import (
    Event,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    Operation,
    State,
    Template,
    TemplateChanged,
    TemplateDeleted,
)
from supervisor.models.base import MIB
from supervisor.rules import lifecycle
from supervisor.rules.lineage import Descent, Forest, forest
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.store.registry import Registry

LOCKED_BY_SHOWN = 16
"""How many holders of a lock an instance carries on the wire; `fork_count` counts them all."""

STEP_SHOWN = 0.25
"""Seconds that a step takes before it is published: most take none that anybody could read."""
SHOWN_AS_RECORDED = (
    "id", "name", "image", "state", "created_at", "hypervisor", "vcpus", "started_at", "stopped_at", "exit_code",
    "exit_message", "source_id", "fork_kind", "template_id", "memory_backend", "prefetch", "phases", "size_bytes",
    "track_dirty_pages",
)  # fmt: skip


class Inventory:
    """The records of one host; whatever changes here is written first and published after."""

    def __init__(self, registry: Registry, publish: Callable[[Event], None]) -> None:
        self.registry = registry
        self.instances: dict[str, InstanceRecord] = {}
        self.templates: dict[str, TemplateRecord] = {}
        self.unreadable: dict[str, str] = {}
        self._publish = publish
        self._operations: dict[str, progress.Operation] = {}
        self._recording: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._views: dict[str, Instance] = {}
        self._forest: Forest | None = None
        self.changes = 0
        """How often any instance has changed."""
        self._changed = asyncio.Event()
        self._template_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def forest(self) -> Forest:
        """The fork forest of the present records."""
        if self._forest is None:
            self._forest = forest(
                Descent(record.id, record.name, record.source_id, record.fork_kind)
                for record in self.instances.values()
            )
        return self._forest

    def load(self) -> None:
        """Read every record from disk."""
        instances, templates, self.unreadable = self.registry.load()
        self.instances = {record.id: record for record in instances}
        self.templates = {record.id: record for record in templates}
        self._names = {record.name: record.id for record in instances}
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
            f"{reference}: no instance has this id, name or unique id prefix; GET /instances lists them"
        )

    def template_of(self, instance_id: str) -> TemplateRecord | None:
        """Return the template that this instance was promoted to, if it was."""
        return next((template for template in self.templates.values() if template.instance_id == instance_id), None)

    def reserve(self, name: str, instance_id: str) -> None:
        """Take a name for an instance that is about to exist; NameConflictError where it is taken."""
        taken = self._names.setdefault(name, instance_id)
        if taken != instance_id:
            raise NameConflictError(
                f"{name}: the name is taken by instance {taken}; choose another, or delete that one"
            )

    def give_back(self, name: str, instance_id: str) -> None:
        """Let go of a name that was reserved for an instance, where that never came to exist."""
        if instance_id not in self.instances and self._names.get(name) == instance_id:
            del self._names[name]

    def free_names(self, prefix: str) -> Iterator[str]:
        """Yield `<prefix>-<n>` for each n from 1 that no instance is named after."""
        number = 0
        while True:
            number += 1
            if f"{prefix}-{number}" not in self._names:
                yield f"{prefix}-{number}"

    async def add(self, record: InstanceRecord, populate: Callable[[Path], None]) -> None:
        """Write and publish an instance whose name was reserved, with the files that `populate` puts in its directory.

        Its source's fork_count changes with it.
        """
        await asyncio.to_thread(self.registry.create_instance, record, populate)
        self.instances[record.id] = record
        self._forest = None
        self._publish_family(record)

    async def save(self, record: InstanceRecord) -> InstanceRecord:
        """Write and publish a change of an instance; returns the record.

        Raises InvalidStateError for a transition that there is none of, whichever verb asks for it.
        """
        before, holders = self.instances[record.id].state, self.forest.holder_names(record.id)
        lifecycle.check_transition(record.name, before, record.state, holders)
        await asyncio.to_thread(self.registry.save_instance, record)
        self.instances[record.id] = record
        self.publish_instance(record.id)
        return record

    def note(self, record: InstanceRecord) -> InstanceRecord:
        """Publish a change that has happened, and that the disk did not take; a restart finds it out anew."""
        self.instances[record.id] = record
        self.publish_instance(record.id)
        return record

    async def detach(self, record: InstanceRecord) -> InstanceRecord:
        """Write and publish a fork that lets go of its source's memory; the source's fork_count changes with it."""
        before = self.instances[record.id]
        await asyncio.to_thread(self.registry.save_instance, record)
        self.instances[record.id] = record
        self._recording.pop(record.id, None)
        self._forest = None
        self._publish_family(before)
        return record

    async def remove(self, record: InstanceRecord) -> None:
        """Remove an instance with its directory; its source's fork_count changes with it."""
        await asyncio.to_thread(self.registry.remove_instance, record.id)
        self.instances.pop(record.id, None)
        self._names.pop(record.name, None)
        self._recording.pop(record.id, None)
        self._views.pop(record.id, None)
        self._forest = None
        self._publish(InstanceDeleted(id=record.id))
        self._wake()
        self._publish_source(record)

    async def add_template(self, record: TemplateRecord, populate: Callable[[Path], None]) -> TemplateRecord:
        """Write and publish a new template with the files that `populate` puts in its directory; returns the record."""
        await asyncio.to_thread(self.registry.create_template, record, populate)
        self.templates[record.id] = record
        self.publish_template(record.id)
        return record

    async def update_template(self, template_id: str, **changes: object) -> None:
        """Write and publish changes of a template's present record; nothing where the template is gone.

        Page servers, recordings and forks change one template at the same time: each change is made to what the one
        before it left.
        """
        async with self._template_locks[template_id]:
            present = self.templates.get(template_id)
            if present is None:
                return
            record = present.model_copy(update=changes)
            await asyncio.to_thread(self.registry.save_template, record)
            self.templates[template_id] = record
        self.publish_template(template_id)

    def note_template(self, template_id: str, **changes: object) -> None:
        """Publish what is so of a template and what the disk did not take; its next change writes it too."""
        present = self.templates.get(template_id)
        if present is not None:
            self.templates[template_id] = present.model_copy(update=changes)
            self.publish_template(template_id)

    async def remove_template(self, template_id: str) -> None:
        """Remove a template with its hot-page list."""
        async with self._template_locks[template_id]:
            await asyncio.to_thread(self.registry.remove_template, template_id)
            self.templates.pop(template_id, None)
        self._template_locks.pop(template_id, None)
        self._publish(TemplateDeleted(id=template_id))

    @contextlib.contextmanager
    def showing(self, instance_id: str, operation: progress.Operation) -> Iterator[None]:
        """Show an operation in progress while the context lasts: its beginning, its end, and steps that take long."""
        self._operations[instance_id] = operation
        self._publish_present(instance_id)
        self._show_step(instance_id, operation, operation.step)
        try:
            yield
        finally:
            del self._operations[instance_id]
            self._publish_present(instance_id)

    def set_recording(self, instance_id: str, template_id: str | None) -> None:
        """Show, or no longer show, that a fork is the one that records its template's hot pages."""
        before = self._recording.pop(instance_id, None)
        if template_id is not None:
            self._recording[instance_id] = template_id
        if before == template_id:
            return
        self._publish_present(instance_id)
        for template in (before, template_id):
            if template in self.templates:
                self.publish_template(template)

    def recorder(self, template_id: str) -> str | None:
        """Return the id of the fork that records this template's hot pages now, if one does."""
        return next((fork for fork, template in self._recording.items() if template == template_id), None)

    def publish_instance(self, instance_id: str) -> None:
        """Publish an instance as it is now."""
        self._views.pop(instance_id, None)
        self._publish(InstanceChanged(instance=self.view(self.instances[instance_id])))
        self._wake()

    def publish_template(self, template_id: str) -> None:
        """Publish a template as it is now."""
        self._publish(TemplateChanged(template=self.view_template(self.templates[template_id])))

    async def changed(self) -> None:
        """Return after the next change of any instance."""
        await self._changed.wait()

    def view(self, record: InstanceRecord) -> Instance:
        """Return an instance as the wire shows it: as it was last published, but for the step of an operation."""
        if self.instances.get(record.id) is not record or record.id in self._operations:
            return self._view(record)
        if record.id not in self._views:
            self._views[record.id] = self._view(record)
        return self._views[record.id]

    def _view(self, record: InstanceRecord) -> Instance:
        count = self.forest.fork_count(record.id)
        # Not validated: a record is, and a thousand are listed at once.
        return Instance.model_construct(
            **{name: getattr(record, name) for name in SHOWN_AS_RECORDED},
            size=f"{record.size_bytes // MIB}MB",
            has_snapshot=record.state is State.STANDBY,
            fork_count=count,
            mem_locked=count > 0,
            locked_by=self.forest.holder_names(record.id, LOCKED_BY_SHOWN),
            layers=len(record.snapshot.layers) if record.snapshot else 0,
            recording=record.id in self._recording,
            vmm_pid=record.process.pid if record.process else None,
            operation=_view_operation(self._operations.get(record.id)),
        )

    def view_template(self, record: TemplateRecord) -> Template:
        """Return a template as the wire shows it."""
        return Template(
            id=record.id,
            instance_id=record.instance_id,
            size_bytes=record.size_bytes,
            page_size=record.page_size,
            fork_count=self.forest.fork_count(record.instance_id),
            layers=len(record.layers),
            page_server_pid=record.page_server.pid if record.page_server else None,
            recording_fork=self.recorder(record.id),
            recorded_pages=record.recorded_pages,
            recorded_runs=record.recorded_runs,
            sampled_pages=record.sampled_pages,
            precision=record.precision,
            wasted_bytes=record.wasted_bytes,
            page_server_restarts=record.page_server_restarts,
        )

    def _show_step(self, instance_id: str, operation: progress.Operation, shown: str) -> None:
        if self._operations.get(instance_id) is not operation:
            return
        if operation.step != shown:
            self._publish_present(instance_id)
        loop = asyncio.get_running_loop()
        loop.call_later(STEP_SHOWN, self._show_step, instance_id, operation, operation.step)

    def _publish_present(self, instance_id: str) -> None:
        if instance_id in self.instances:
            self.publish_instance(instance_id)

    def _publish_family(self, record: InstanceRecord) -> None:
        self.publish_instance(record.id)
        self._publish_source(record)

    def _publish_source(self, record: InstanceRecord) -> None:
        if record.source_id in self.instances:
            self.publish_instance(record.source_id)
        if record.template_id in self.templates:
            self.publish_template(record.template_id)

    def _wake(self) -> None:
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _view_operation(operation: progress.Operation | None) -> Operation | None:
    if operation is None:
        return None
    return Operation(verb=operation.verb, step=operation.step, asked_by=operation.asked_by, since=operation.since)
