"""What is told of the records: views of them as they are now, and an event whenever one changes."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Literal, get_args

from supervisor.concurrency import progress
from supervisor.models import (
    Event,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    Template,
    TemplateChanged,
    TemplateDeleted,
)
from supervisor.store.index import Index
from supervisor.store.records import InstanceRecord, ProcessIdentity, TemplateRecord
from supervisor.store.views import instance_view, template_view, unreadable_view

Problem = Literal["memory", "api", "console"]
"""What of a VM that runs may be out of reach: the pages that its guest asks for, its VMM's API, or its logs."""
STEP_SHOWN: Final = 0.25
"""Seconds that a step takes before it is published: most take none that anybody could read."""


class Publisher:
    """Publishes instances and templates with what no record has: operations in progress, and who records."""

    def __init__(self, index: Index, publish: Callable[[Event], None]) -> None:
        self._index = index
        self._publish = publish
        self._operations: dict[str, list[progress.Operation]] = {}
        """Of each instance those in progress, the longest at it first: that one is shown."""
        self._recording: dict[str, str] = {}
        self._problems: dict[tuple[str, Problem], tuple[ProcessIdentity | None, str]] = {}
        self._views: dict[str, Instance] = {}
        self.changes = 0
        """How often any instance has changed."""
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Return after the next change of any instance."""
        await self._changed.wait()

    def view(self, record: InstanceRecord) -> Instance:
        """Return an instance as the wire shows it: as it was last published, but for the step of an operation."""
        if self._index.instances.get(record.id) is not record or record.id in self._operations:
            return self._view(record)
        if record.id not in self._views:
            self._views[record.id] = self._view(record)
        return self._views[record.id]

    def view_template(self, record: TemplateRecord) -> Template:
        """Return a template as the wire shows it."""
        return template_view(record, self._index.forest, self.recorder(record.id))

    def views(self) -> list[Instance]:
        """Return every instance; those whose records are set aside are Unknown, and such templates are among them."""
        known = [self.view(record) for record in self._index.instances.values()]
        taken = {one.name for one in known}
        for directory, one in self._index.unreadable.items():
            # Of several of one name each is shown by one of its own.
            name = directory if one.name is None or one.name in taken else one.name
            taken.add(name)
            known.append(unreadable_view(directory, name, one.reason))
        for directory, one in self._index.unreadable_templates.items():
            known.append(unreadable_view(directory, f"template-{directory}", one.reason))
        return known

    def instance(self, instance_id: str) -> None:
        """Publish an instance as it is now."""
        self._views.pop(instance_id, None)
        self._publish(InstanceChanged(instance=self.view(self._index.instances[instance_id])))
        self._wake()

    def family(self, record: InstanceRecord) -> None:
        """Publish an instance that is new or has let go of its source, which `record` names, and that source."""
        self.instance(record.id)
        self._source(record)

    def instance_deleted(self, record: InstanceRecord) -> None:
        """Publish that an instance is gone, and its source, which counts it no more."""
        self._recording.pop(record.id, None)
        for problem in get_args(Problem):
            self._problems.pop((record.id, problem), None)
        self._views.pop(record.id, None)
        self._publish(InstanceDeleted(id=record.id))
        self._wake()
        self._source(record)

    def template(self, template_id: str) -> None:
        """Publish a template as it is now."""
        self._publish(TemplateChanged(template=self.view_template(self._index.templates[template_id])))

    def template_deleted(self, template_id: str) -> None:
        """Publish that a template is gone."""
        self._publish(TemplateDeleted(id=template_id))

    @contextlib.contextmanager
    def showing(self, operation: progress.Operation) -> Iterator[None]:
        """Show an operation on its instance while the context lasts: its beginning, its end, and what takes long.

        One of several is shown: the others are most often its parts.
        """
        instance_id = operation.instance_id
        present = self._operations.setdefault(instance_id, [])
        present.append(operation)
        if present[0] is operation:
            self._present(instance_id)
        self._show_progress(operation, _shown(operation))
        try:
            yield
        finally:
            shown = present[0] is operation
            present.remove(operation)
            if not present:
                del self._operations[instance_id]
            if shown:
                self._present(instance_id)

    def set_recording(self, instance_id: str, template_id: str | None) -> None:
        """Show, or no longer show, that a fork is the one that records its template's hot pages."""
        before = self._recording.pop(instance_id, None)
        if template_id is not None:
            self._recording[instance_id] = template_id
        if before == template_id:
            return
        self._present(instance_id)
        for template in (before, template_id):
            if template in self._index.templates:
                self.template(template)

    def set_problem(self, record: InstanceRecord, problem: Problem, told: str | None) -> bool:
        """Show what is wrong with the VM that the record names for as long as that runs, or no longer with None.

        Returns whether that is another than was shown.
        """
        key, found = (record.id, problem), None if told is None else (record.process, told)
        if self._problems.get(key) == found:
            return False
        if found is None:
            self._problems.pop(key)
        else:
            self._problems[key] = found
        self._present(record.id)
        return True

    def recorder(self, template_id: str) -> str | None:
        """Return the id of the fork that records this template's hot pages now, if one does."""
        return next((fork for fork, template in self._recording.items() if template == template_id), None)

    def forget_recording(self, instance_id: str) -> None:
        """Let a fork that is about to be published be one that does not record."""
        self._recording.pop(instance_id, None)

    def _view(self, record: InstanceRecord) -> Instance:
        operation = self._operations.get(record.id, (None,))[0]
        recording, problem = record.id in self._recording, self._problem(record)
        return instance_view(record, self._index.forest, operation, recording, problem)

    def _problem(self, record: InstanceRecord) -> str | None:
        found = [self._problems.get((record.id, problem)) for problem in get_args(Problem)]
        told = [*filter(None, [self._index.problem_of(record)])]
        told += [one[1] for one in found if one and one[0] == record.process and record.process is not None]
        return "; ".join(told) or None

    def _show_progress(self, operation: progress.Operation, before: tuple[object, ...]) -> None:
        if operation.ended:
            return
        now = _shown(operation)
        if now != before and self._operations[operation.instance_id][0] is operation:
            self._present(operation.instance_id)
        asyncio.get_running_loop().call_later(STEP_SHOWN, self._show_progress, operation, now)

    def _present(self, instance_id: str) -> None:
        if instance_id in self._index.instances:
            self.instance(instance_id)

    def _source(self, record: InstanceRecord) -> None:
        if record.source_id in self._index.instances:
            self.instance(record.source_id)
        if record.template_id in self._index.templates:
            self.template(record.template_id)

    def _wake(self) -> None:
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _shown(operation: progress.Operation) -> tuple[object, ...]:
    """Return what of an operation changes while it is in progress."""
    return operation.step, operation.done, operation.total, operation.cancelled
