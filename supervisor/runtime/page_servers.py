"""The page servers of all templates: started, watched, replaced when they die or hang, found again, stopped."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from supervisor.concurrency.progress import step
from supervisor.concurrency.tasks import Background, beside
from supervisor.errors import PageServerError, SupervisorError
from supervisor.images.snapshot_image import HOT_PAGES
from supervisor.models import Level
from supervisor.runtime.liveness import HANGING_BOUND, STOPPED_BOUND, Silence
from supervisor.runtime.orphans import end
from supervisor.runtime.restart_backoff import Backoff
from supervisor.snapshots.layer_files import check_marks
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, ProcessIdentity, TemplateRecord
from supervisor.uffd.handle import (
    Failing,
    Gone,
    PageServer,
    PageServerEvent,
    Policy,
    Recorded,
    RecordingDropped,
    Refused,
    Sampled,
    Status,
)
from supervisor.uffd.program import listener_at

WATCH_PERIOD = 0.25
"""Seconds between two questions to a page server."""


class PageServers:
    """At most one page server for each template; whatever becomes of it, its forks wait and are never wrong."""

    def __init__(
        self,
        inventory: Inventory,
        data_dir: Path,
        run_dir: Path,
        policy: Policy,
        report: Callable[[Level, str, str | None], None],
    ) -> None:
        self._inventory = inventory
        self._data_dir = data_dir
        self._run_dir = run_dir
        self._policy = policy
        self._report = report
        self._servers: dict[str, PageServer] = {}
        self._starting: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._backoff: defaultdict[str, Backoff] = defaultdict(Backoff)
        self._lost: set[str] = set()
        """Templates whose records on disk name page servers that were found to be gone."""
        self._missed: set[str] = set()
        """Forks that run and that no page server has: they could not be handed over."""
        self._background = Background("the care for a page server")

    @property
    def pids(self) -> tuple[int, ...]:
        """The page servers that run."""
        return tuple(server.pid for server in self._servers.values())

    def control(self, template_id: str) -> Path:
        """Return where a template's page server listens."""
        return self._run_dir / f"{template_id}.pages"

    def page_map(self, fork_id: str) -> Path:
        """Return where a fork's page map is."""
        return self._run_dir / "pages" / f"{fork_id}.map"

    async def serving(self, template_id: str) -> PageServer:
        """Return the template's page server; one that is started now takes over every fork that runs."""
        async with self._starting[template_id]:
            running = self._servers.get(template_id)
            if running is not None:
                return running
            template = self._inventory.templates.get(template_id)
            if template is None:
                raise PageServerError(f"there is no template {template_id}: its record is gone or cannot be read")
            directory = self._inventory.registry.template_directory(template_id)
            layers = [self._data_dir / layer for layer in template.layers]
            await asyncio.to_thread(check_marks, layers, template.layer_marks)
            step("start page server")
            server = await PageServer.spawn(
                template_id=template_id,
                layers=layers,
                memory_size=template.size_bytes,
                page_size=template.page_size,
                hot_pages=directory / HOT_PAGES,
                control=self.control(template_id),
                log=directory / "page_server.log",
                policy=self._policy,
                on_event=partial(self._on_event, template_id),
            )
            try:
                status = await server.status()
                if status.hot_pages_refused:
                    self._report("warning", status.hot_pages_refused, template.instance_id)
                # On disk before it has a fork: whoever comes after a crash has to find the one that serves.
                await self._note(template_id, page_server=_identity(server), **_list_of(status))
                await asyncio.gather(*(self._hand_over(fork, server) for fork in self._running_forks(template_id)))
            except BaseException:
                await asyncio.shield(server.stop())
                raise
            self._keep(template_id, server)
            return server

    async def confirm(self, fork: InstanceRecord) -> None:
        """See that a fork whose record has only now become Running is served: a takeover before may have missed it."""
        if fork.template_id is None or not fork.attached or fork.memory_backend != "uffd":
            return
        try:
            server = await self.serving(fork.template_id)
            if fork.id not in server.forks:
                await self._hand_over(fork, server)
        except PageServerError as error:
            # The record says Running, so that the page server that comes next takes the fork over.
            self._report("warning", f"{fork.name}: {error.message}", fork.id)
            self._background.spawn(self._replace(fork.template_id))

    async def populate(self, fork: InstanceRecord) -> None:
        """Give a uffd fork that runs all of its pages, so that it needs no page server any more.

        Raises PageServerError where that could not be done: it is served on as before.
        """
        if fork.template_id is not None:
            await self.confirm(fork)
            step("populate memory")
            await (await self.serving(fork.template_id)).populate(fork.id)

    async def reconnect(self) -> None:
        """Find the page servers that an earlier supervisor left running."""
        for template in list(self._inventory.templates.values()):
            identity = await asyncio.to_thread(self.listening, template.id) or template.page_server
            if identity is None or not await self._reconnect(template, identity):
                self.control(template.id).unlink(missing_ok=True)

    def replace_lost(self) -> None:
        """Have those templates served whose forks run and that have no page server; note of others that it is gone."""
        for template in self._inventory.templates.values():
            if template.id not in self._servers and self._running_forks(template.id):
                what = f"template {template.id} has no page server; it gets one"
                self._report("alarm", what, template.instance_id)
                self._background.spawn(self._replace(template.id))
            elif template.id in self._lost:
                self._background.spawn(self._note_lost(template.id))
        self._lost.clear()

    async def _note_lost(self, template_id: str) -> None:
        async with self._starting[template_id]:
            # A fork may have been made meanwhile.
            if template_id not in self._servers:
                await self._note(template_id, page_server=None)

    async def _reconnect(self, template: TemplateRecord, identity: ProcessIdentity) -> bool:
        """Go on with the page server of this identity; False once it is certain that there is none."""
        try:
            server = await self._found(template, identity)
            status = await server.status(seconds=HANGING_BOUND)
            running = self._running_forks(template.id)
            missed = [fork for fork in running if fork.id not in status.forks]
            await asyncio.gather(*(self._hand_over(fork, server) for fork in missed))
            known = {fork.id for fork in running}.union(self._inventory.unreadable)
            for fork_id in set(status.forks).difference(known):
                # Detached, or undone: whoever was to tell it so was killed.
                await server.release(fork_id)
        except PageServerError as error:
            if self._running_forks(template.id):
                self._report("alarm", error.message, template.instance_id)
            else:
                # As for every template after a reboot of the host.
                self._report("info", f"{error.message}; no fork waits for it", template.instance_id)
            # It may be alive and hanging, and would keep the control socket from its successor.
            await asyncio.to_thread(end, identity)
            # On disk with the next one's, or after the start: a slow disk is not to delay it.
            self._inventory.note_template(template.id, page_server=None)
            self._lost.add(template.id)
            return False
        for fork_id in status.recording:
            self._inventory.set_recording(fork_id, template.id)
        await self._note(template.id, page_server=_identity(server), **_list_of(status))
        self._keep(template.id, server)
        return True

    def listening(self, template_id: str) -> ProcessIdentity | None:
        """Return the page server that listens for a template, whatever its record says. Blocks."""
        listener = listener_at(self.control(template_id))
        return ProcessIdentity(pid=listener[0], start_time=listener[1]) if listener else None

    async def _found(self, template: TemplateRecord, identity: ProcessIdentity) -> PageServer:
        return await PageServer.connect(
            template_id=template.id,
            control=self.control(template.id),
            pid=identity.pid,
            start_time=identity.start_time,
            on_event=partial(self._on_event, template.id),
        )

    def begin_recording(self, fork: InstanceRecord) -> bool:
        """Return whether a fork that is about to be loaded records its template's hot pages: one does at a time.

        It is the one from here on, until its recording has ended or it is released.
        """
        template = self._inventory.templates[fork.template_id or ""]
        wanted = fork.record_hot_pages == "on" or (fork.record_hot_pages == "auto" and not template.recorded_pages)
        if not wanted or self._inventory.recorder(template.id) is not None:
            return False
        self._inventory.set_recording(fork.id, template.id)
        return True

    async def release(self, record: InstanceRecord) -> None:
        """Tell the page server of this fork's template that the fork's VMM is gone, or needs it no more."""
        self._inventory.set_recording(record.id, None)
        self._missed.discard(record.id)
        server = self._servers.get(record.template_id or "")
        if server is not None:
            with contextlib.suppress(PageServerError):
                await server.release(record.id)

    async def stop(self, template_id: str) -> None:
        """End the page server of a template that no fork holds."""
        step("stop page server")
        async with self._starting[template_id]:
            server = self._servers.pop(template_id, None)
            if server is not None:
                await server.stop()
        self._backoff.pop(template_id, None)

    async def close(self) -> None:
        """Stop the page servers that no fork needs and let go of the others, which go on."""
        await self._background.cancel()
        servers, self._servers = self._servers, {}
        for template_id, server in servers.items():
            template = self._inventory.templates.get(template_id)
            if template is None or self._inventory.forest.fork_count(template.instance_id) == 0:
                await server.stop()
                await self._note(template_id, page_server=None)
            else:
                await server.disconnect()

    def _running_forks(self, template_id: str) -> list[InstanceRecord]:
        return [
            record
            for record in self._inventory.instances.values()
            if record.template_id == template_id
            and record.attached
            and record.memory_backend == "uffd"
            and record.process is not None
        ]

    def _keep(self, template_id: str, server: PageServer) -> None:
        self._servers[template_id] = server
        server.exited.add_done_callback(lambda _: self._background.spawn(self._on_exit(template_id, server)))
        self._background.spawn(self._watch(template_id, server))

    async def _note(self, template_id: str, **changes: object) -> None:
        """Write what the template's record should say; guests are served whether or not the disk takes it."""
        try:
            await self._inventory.update_template(template_id, **changes)
        except SupervisorError as error:
            self._report("alarm", error.message, None)
            self._inventory.note_template(template_id, **changes)

    async def _hand_over(self, fork: InstanceRecord, server: PageServer) -> None:
        if fork.process is None:
            return
        self._inventory.set_recording(fork.id, None)
        try:
            await server.adopt(fork.id, page_map=self.page_map(fork.id), vmm_pid=fork.process.pid)
        except PageServerError as error:
            if fork.id not in self._missed:
                self._report("alarm", f"{fork.name}: its page faults are not answered: {error.message}", fork.id)
            self._missed.add(fork.id)
        else:
            self._missed.discard(fork.id)

    async def _watch(self, template_id: str, server: PageServer) -> None:
        """Ask the page server for a sign of life until it ends; kill it when it gives none."""
        silence = Silence(server.pid)
        while self._servers.get(template_id) is server and not server.exited.done():
            try:
                await server.ping(seconds=STOPPED_BOUND)
                silence.answered()
                await self._hand_over_missed(template_id, server)
            except PageServerError:
                if not server.exited.done() and silence.unanswered():
                    what = f"the page server (pid {server.pid}) of template {template_id} has not answered"
                    self._report(
                        "alarm", f"{what} for {silence.seconds:.1f} s; it is replaced", self._source(template_id)
                    )
                    server.kill()
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_PERIOD):
                    await asyncio.shield(server.exited)

    async def _hand_over_missed(self, template_id: str, server: PageServer) -> None:
        """Try again what has failed: descriptors may have been short."""
        for fork in self._running_forks(template_id) if self._missed else ():
            if fork.id in self._missed:
                await self._hand_over(fork, server)

    async def _on_exit(self, template_id: str, server: PageServer) -> None:
        if self._servers.get(template_id) is not server:
            return
        del self._servers[template_id]
        self._backoff[template_id].died()
        forks = len(self._running_forks(template_id))
        what = f"the page server (pid {server.pid}) of template {template_id} died"
        self._report("alarm", f"{what}; {forks} forks wait for another", self._source(template_id))
        # Guests wait: the disk may be slow. What the record is to say of the next comes after this.
        async with beside(self._note(template_id, page_server=None)) as noted:
            if forks:
                await self._replace(template_id)
            await noted

    async def _replace(self, template_id: str) -> None:
        """Start page servers until one serves the template's forks."""
        while self._running_forks(template_id):
            delay = self._backoff[template_id].delay()
            if delay:
                told = f"the page servers of template {template_id} die; the next starts in {delay:.1f} s"
                self._report("alarm", told, self._source(template_id))
                await asyncio.sleep(delay)
            forks = self._running_forks(template_id)
            if not forks:
                return
            began = time.monotonic()
            try:
                server = await self.serving(template_id)
            except PageServerError as error:
                self._backoff[template_id].died()
                self._report("alarm", error.message, self._source(template_id))
                continue
            took = (time.monotonic() - began) * 1e3
            done = f"page server {server.pid} took over {len(forks)} forks in {took:.0f} ms"
            self._report("warning", done, self._source(template_id))
            template = self._inventory.templates.get(template_id)
            if template is not None:
                await self._note(template_id, page_server_restarts=template.page_server_restarts + 1)
            return

    def _source(self, template_id: str) -> str | None:
        template = self._inventory.templates.get(template_id)
        return template.instance_id if template else None

    def _on_event(self, template_id: str, event: PageServerEvent) -> None:
        match event:
            case Recorded():
                self._background.spawn(self._recorded(template_id, event))
            case RecordingDropped():
                self._inventory.set_recording(event.fork_id, None)
                self._report("info", f"a recording was cut off after {event.pages} pages", event.fork_id)
            case Sampled():
                self._background.spawn(
                    self._note(template_id, sampled_pages=event.held_back, sampled_wanted=event.touched)
                )
            case Gone():
                self._inventory.set_recording(event.fork_id, None)
            case Failing():
                self._report("alarm", f"a page server cannot provide a page: {event.reason}", event.fork_id)
            case Refused():
                self._report("alarm", f"a peer of the page server was refused: {event.reason}", event.fork_id)

    async def _recorded(self, template_id: str, event: Recorded) -> None:
        # What the samples told of the list before this recording does not hold for this one (merging.py).
        changes = {"recorded_pages": event.pages, "recorded_runs": event.runs, "sampled_pages": 0, "sampled_wanted": 0}
        await self._note(template_id, **changes)
        # Not before: a fork that is loaded meanwhile would record it all again.
        self._inventory.set_recording(event.fork_id, None)
        told = f"template {template_id} has recorded {event.pages} hot pages in {event.runs} runs"
        self._report("info", told, self._source(template_id))


def _identity(server: PageServer) -> ProcessIdentity:
    return ProcessIdentity(pid=server.pid, start_time=server.start_time)


def _list_of(status: Status) -> dict[str, object]:
    """Return what a template's record says of the hot-page list that its page server has."""
    return {
        "recorded_pages": status.hot_pages,
        "recorded_runs": status.hot_runs,
        "sampled_pages": status.held_back_pages,
        "sampled_wanted": status.held_back_touched,
    }
