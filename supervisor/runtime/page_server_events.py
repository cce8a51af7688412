"""What page servers tell of templates and forks: into the templates' records, onto the screen, and into the log."""

from functools import partial

from supervisor.concurrency.tasks import Background
from supervisor.errors import SupervisorError
from supervisor.models import how_many
from supervisor.models.base import Report
from supervisor.store.inventory import Inventory
from supervisor.store.records import ProcessIdentity
from supervisor.system.processes import boot_id
from supervisor.uffd.handle import (
    Failing,
    Gone,
    PageServer,
    PageServerEvent,
    Recorded,
    RecordingDropped,
    Refused,
    Sampled,
    Status,
)


class PageServerEvents:
    """Guests are served whether or not the disk takes what is told of them."""

    def __init__(self, inventory: Inventory, background: Background, report: Report) -> None:
        self._inventory = inventory
        self._background = background
        self._report = report

    def of(self, template_id: str) -> "partial[None]":
        """Return what takes the events of a template's page server."""
        return partial(self._on_event, template_id)

    async def serves(self, template_id: str, server: PageServer, status: Status) -> None:
        """Write which page server a template has, and which hot-page list that has."""
        await self.update(
            template_id,
            page_server=ProcessIdentity(pid=server.pid, start_time=server.start_time, boot_id=boot_id()),
            recorded_pages=status.hot_pages,
            recorded_runs=status.hot_runs,
            sampled_pages=status.held_back_pages,
            sampled_wanted=status.held_back_touched,
        )

    async def update(self, template_id: str, **changes: object) -> None:
        """Write what a template's record should say, if the disk takes it."""
        try:
            await self._inventory.update_template(template_id, **changes)
        except SupervisorError as error:
            self._report("alarm", error.message, None)
            self._inventory.set_template_unsaved(template_id, **changes)

    def source(self, template_id: str) -> str | None:
        """Return the id of the instance that a template was promoted from."""
        template = self._inventory.templates.get(template_id)
        return template.instance_id if template else None

    def whose(self, template_id: str) -> str:
        """Return the name of that instance: an operator sees no template, and its id is on no screen."""
        source = self._inventory.instances.get(self.source(template_id) or "")
        return source.name if source else f"template {template_id}, whose source is not known,"

    def _on_event(self, template_id: str, event: PageServerEvent) -> None:
        publisher = self._inventory.publisher
        fork = self._inventory.instances.get(getattr(event, "fork_id", ""))
        if fork is not None and fork.template_id not in (None, template_id):
            return  # a page server has nothing to say of another template's forks
        match event:
            case Recorded():
                self._background.spawn(self._recorded(template_id, event))
            case RecordingDropped():
                publisher.set_recording(event.fork_id, None)
                self._report("info", f"a recording was cut off after {how_many(event.pages, 'page')}", event.fork_id)
            case Sampled():
                sampled = {"sampled_pages": event.held_back, "sampled_wanted": event.touched}
                self._background.spawn(self.update(template_id, **sampled))
            case Gone():
                publisher.set_recording(event.fork_id, None)
            case Failing():
                self._report("alarm", f"a page server cannot provide a page: {event.reason}", event.fork_id)
            case Refused():
                self._report("alarm", f"a peer of the page server was refused: {event.reason}", event.fork_id)

    async def _recorded(self, template_id: str, event: Recorded) -> None:
        # What the samples told of the list before this recording does not hold for this one (merging.py).
        changes = {"recorded_pages": event.pages, "recorded_runs": event.runs, "sampled_pages": 0, "sampled_wanted": 0}
        await self.update(template_id, **changes)
        # Not before: a fork that is loaded meanwhile would record it all again.
        self._inventory.publisher.set_recording(event.fork_id, None)
        pages, runs = how_many(event.pages, "hot page"), how_many(event.runs, "run")
        recorded = f"{self.whose(template_id)}: its forks have recorded {pages} in {runs}"
        self._report("info", recorded, self.source(template_id))
