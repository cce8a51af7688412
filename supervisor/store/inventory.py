"""What the supervisor owns: whatever changes here is written first, and published after."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from supervisor.concurrency.keyed_lock import KeyedLock
from supervisor.models import Event
from supervisor.rules import lifecycle
from supervisor.store.index import Index
from supervisor.store.layout import Layout
from supervisor.store.publisher import Publisher
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.store.registry import Registry


class Inventory(Index):
    """The records of one host, in memory as on disk."""

    def __init__(self, registry: Registry, publish: Callable[[Event], None]) -> None:
        super().__init__()
        self.registry = registry
        self.publisher = Publisher(self, publish)
        self._template_locks = KeyedLock()

    @property
    def layout(self) -> Layout:
        """Where everything is."""
        return self.registry.layout

    def load(self) -> None:
        """Read every record from disk. Blocks."""
        self.fill(self.registry.load())

    async def add(self, record: InstanceRecord, populate: Callable[[Path], None]) -> InstanceRecord:
        """Write and publish an instance whose name was reserved, with the files that `populate` puts in its directory.

        Returns the record, which has its number now. Its source's fork_count changes with it.
        """
        record = record.model_copy(update={"number": self.next_number()})
        await asyncio.to_thread(self.registry.create_instance, record, populate)
        self.put(record)
        self.publisher.family(record)
        return record

    async def save(self, record: InstanceRecord) -> InstanceRecord:
        """Write and publish a change of an instance; returns the record.

        Raises InvalidStateError for a transition that there is none of, whichever verb asks for it.
        """
        before, holders = self.instances[record.id].state, self.forest.holder_names(record.id)
        lifecycle.check_transition(record.name, before, record.state, holders)
        await asyncio.to_thread(self.registry.save_instance, record)
        return self.set_unsaved(record)

    def set_unsaved(self, record: InstanceRecord) -> InstanceRecord:
        """Publish a change that has happened, whether or not the disk has it; a restart finds it out anew.

        The fork_count of a source changes with a fork that lets go of its memory.
        """
        before = self.instances[record.id]
        self.put(record)
        if before.fork_kind == record.fork_kind:
            self.publisher.instance(record.id)
        else:
            self.publisher.forget_recording(record.id)
            self.publisher.family(before)
        return record

    async def remove(self, record: InstanceRecord) -> None:
        """Remove an instance with its directory; its source's fork_count changes with it."""
        await asyncio.to_thread(self.registry.remove_instance, record.id)
        self.drop(record)
        self.publisher.instance_deleted(record)

    async def add_template(self, record: TemplateRecord, populate: Callable[[Path], None]) -> TemplateRecord:
        """Write and publish a new template with the files that `populate` puts in its directory; returns the record."""
        await asyncio.to_thread(self.registry.create_template, record, populate)
        self.templates[record.id] = record
        self.publisher.template(record.id)
        return record

    async def update_template(self, template_id: str, **changes: object) -> None:
        """Write and publish changes of a template's present record; nothing where the template is gone.

        Page servers, recordings and forks change one template at the same time: each change is made to what the one
        before it left.
        """
        async with self._template_locks.hold(template_id):
            present = self.templates.get(template_id)
            if present is None:
                return
            record = present.model_copy(update=changes)
            await asyncio.to_thread(self.registry.save_template, record)
            self.templates[template_id] = record
        self.publisher.template(template_id)

    def set_template_unsaved(self, template_id: str, **changes: object) -> None:
        """Publish what is so of a template and what the disk did not take; its next change writes it too."""
        present = self.templates.get(template_id)
        if present is not None:
            self.templates[template_id] = present.model_copy(update=changes)
            self.publisher.template(template_id)

    async def remove_template(self, template_id: str) -> None:
        """Remove a template with its hot-page list."""
        async with self._template_locks.hold(template_id):
            await asyncio.to_thread(self.registry.remove_template, template_id)
            self.templates.pop(template_id, None)
        self.publisher.template_deleted(template_id)
