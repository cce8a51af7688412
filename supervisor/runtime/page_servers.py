"""The page servers of all templates: started, watched, replaced when they die or hang, found again, stopped."""

import asyncio
import contextlib
import time
from collections import defaultdict
from functools import partial
from itertools import chain

from supervisor.concurrency.keyed_lock import KeyedLock
from supervisor.concurrency.progress import counted, interruptible, reached, step
from supervisor.concurrency.tasks import Background, beside, to_its_end
from supervisor.consoles.outputs import Holding
from supervisor.errors import OperationCancelledError, PageServerError
from supervisor.models import ErrorBody, how_many
from supervisor.models.base import Report
from supervisor.runtime.handover import Handover
from supervisor.runtime.liveness import HANGING_BOUND, STOPPED_BOUND, Liveness
from supervisor.runtime.orphans import end
from supervisor.runtime.own_processes import identity_of, is_page_server
from supervisor.runtime.page_server_events import PageServerEvents
from supervisor.runtime.page_server_logs import PageServerLogs
from supervisor.runtime.page_server_starts import NO_USERS, PageServerStarts, PageServerUsers
from supervisor.runtime.recalling import recall
from supervisor.runtime.restart_backoff import RestartBackoff
from supervisor.snapshots.layer_checks import check_layers
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, ProcessIdentity, TemplateRecord
from supervisor.system.oom_kills import out_of_memory
from supervisor.system.unix_sockets import listener_at, remove_file
from supervisor.uffd.handle import PageServer, Policy, PutBack
from supervisor.uffd.page_map import PageMapReader

WATCH_PERIOD = 0.25
"""Seconds between two questions to a page server."""


class PageServers:
    """At most one page server for each template; whatever becomes of it, its forks wait and are never wrong."""

    def __init__(
        self,
        inventory: Inventory,
        policy: Policy,
        consoles: Holding,
        report: Report,
        users: PageServerUsers = NO_USERS,
    ) -> None:
        self._inventory = inventory
        self._layout = inventory.layout
        self._report = report
        self._servers: dict[str, PageServer] = {}
        self._starting = KeyedLock()
        self._backoff: defaultdict[str, RestartBackoff] = defaultdict(RestartBackoff)
        self._lost: set[str] = set()
        """Templates whose records on disk name page servers that were found to be gone."""
        self._background = Background("the care for a page server")
        self._logs = PageServerLogs(self._layout, consoles, self._background)
        self._events = PageServerEvents(inventory, self._background, report)
        self._handover = Handover(inventory, report)
        self.restarts = 0
        """How many page servers were replaced since this supervisor started."""
        self._starts = PageServerStarts(inventory, policy, self._events, users, report)

    @property
    def confined_by(self) -> tuple[str, ...]:
        """What confines a page server that starts now; nothing where it is the supervisor's user's."""
        return self._starts.confined_by

    @property
    def pids(self) -> tuple[int, ...]:
        """The page servers that run."""
        return tuple(server.pid for server in self._servers.values())

    async def serving(self, template_id: str) -> PageServer:
        """Return the template's page server; one that is started now takes over every fork that runs."""
        async with self._starting.hold(template_id):
            running = self._servers.get(template_id)
            if running is not None:
                return running
            template = self._inventory.templates.get(template_id)
            if template is None:
                raise PageServerError(f"there is no template {template_id}: its record is gone or cannot be read")
            layers = [self._layout.data_dir / name for name in template.layers]
            whose = self._events.whose(template_id)
            await asyncio.to_thread(check_layers, whose, layers, template.layer_marks)
            step("start page server")
            server = await self._logs.begin(template_id, whose, partial(self._starts.start, template, layers))
            try:
                status = await server.status()
                if lacking := server.confinement.lacking:
                    told = f"the page server of {whose} is not confined by all that it is to be: {'; '.join(lacking)}"
                    self._report("warning", told, template.instance_id)
                if status.hot_pages_refused:
                    self._report("warning", status.hot_pages_refused, template.instance_id)
                # On disk before it has a fork: whoever comes after a crash has to find the one that serves.
                await self._events.serves(template_id, server, status)
                await self._handover.hand_over(self._handover.running_forks(template_id), server)
            except BaseException:
                await to_its_end(self._undo(server))
                raise
            self._follow(template_id, server)
            return server

    async def _undo(self, server: PageServer) -> None:
        """End one that came to nothing: the reason for that is told, and not that it stays."""
        with contextlib.suppress(PageServerError):
            await server.stop()

    async def confirm(self, fork: InstanceRecord) -> None:
        """See that a fork whose record has only now become Running is served: a takeover before may have missed it."""
        if fork.template_id is None or not fork.served_over_uffd:
            return
        try:
            server = await self.serving(fork.template_id)
            if fork.id not in server.forks:
                await self._handover.hand_over((fork,), server)
        except PageServerError as error:
            # The record says Running, so that the page server that comes next takes the fork over.
            self._report("warning", f"{fork.name}: {error.message}", fork.id)
            self._background.spawn(self._replace(fork.template_id))

    async def populate(self, fork: InstanceRecord) -> None:
        """Give a uffd fork that runs all of its pages, so that it needs no page server any more.

        Raises PageServerError where that could not be done, or is cancelled: it is served on as before.
        """
        if fork.template_id is None:
            return
        with interruptible():
            await self.serving(fork.template_id)
        await self.confirm(fork)
        step("populate memory")
        server = await self.serving(fork.template_id)
        template = self._inventory.templates[fork.template_id]
        with counted(template.image_bytes // template.page_size, "pages"):
            async with beside(self._count_present(fork)):
                try:
                    with interruptible():
                        await server.populate(fork.id)
                except OperationCancelledError:
                    with contextlib.suppress(PageServerError):
                        await server.stop_populating(fork.id)
                    raise

    async def _count_present(self, fork: InstanceRecord) -> None:
        """Say how many of a fork's pages are there, until it is cancelled."""
        path = self._layout.page_map(fork.id)
        while True:
            with contextlib.suppress(OSError, PageServerError), PageMapReader(path) as pages:
                reached(pages.counters().present_pages)
            await asyncio.sleep(WATCH_PERIOD)

    async def reconnect(self) -> None:
        """Find the page servers that an earlier supervisor left running."""
        for template in list(self._inventory.templates.values()):
            control = self._layout.control_socket(template.id)
            identity = await asyncio.to_thread(self.listening, template.id)
            if identity is None and template.page_server is not None:
                identity = template.page_server
                if await asyncio.to_thread(is_page_server, identity, self._layout, template.id):
                    await recall(identity, control, confined=template.page_server_uid is not None)
            if identity is None or not await self._reconnect(template, identity):
                remove_file(control)

    def replace_lost(self) -> None:
        """Have those templates served whose forks run and that have no page server; note of others that it is gone."""
        for template in self._inventory.templates.values():
            if template.id not in self._servers and self._handover.running_forks(template.id):
                what = f"{self._events.whose(template.id)}: its forks have no page server; they get one"
                self._report("alarm", what, template.instance_id, shown=True)
                self._background.spawn(self._replace(template.id))
            elif template.id in self._lost:
                self._background.spawn(self._forget_lost(template.id))
        self._lost.clear()

    async def _forget_lost(self, template_id: str) -> None:
        async with self._starting.hold(template_id):
            # A fork may have been made meanwhile.
            if template_id not in self._servers:
                await self._events.update(template_id, page_server=None)

    async def _reconnect(self, template: TemplateRecord, identity: ProcessIdentity) -> bool:
        """Go on with the page server of this identity; False once it is certain that there is none."""
        try:
            server = await self._found(template, identity)
            status = await server.status(seconds=HANGING_BOUND)
            running = self._handover.running_forks(template.id)
            missed = [fork for fork in running if fork.id not in status.forks]
            await self._handover.hand_over(missed, server)
            known = {fork.id for fork in running}.union(self._inventory.unreadable)
            for fork_id in set(status.forks).difference(known):
                # Detached, or undone: whoever was to tell it so was killed.
                await server.release(fork_id)
        except PageServerError as error:
            if self._handover.running_forks(template.id):
                self._report("alarm", error.message, template.instance_id, shown=True)
            else:
                # As for every template after a reboot of the host.
                self._report("info", f"{error.message}; no fork waits for it", template.instance_id)
            # It may be alive and hanging, and would keep the control socket from its successor.
            await asyncio.to_thread(self._end, template.id, identity)
            # On disk with the next one's, or after the start: a slow disk is not to delay it.
            self._inventory.set_template_unsaved(template.id, page_server=None)
            self._lost.add(template.id)
            return False
        for fork_id in status.recording:
            self._inventory.publisher.set_recording(fork_id, template.id)
        await self._events.serves(template.id, server, status)
        self._logs.go_on(server)
        self._follow(template.id, server)
        return True

    async def put_back(self) -> PutBack:
        """Have page servers put back what is missing of theirs in the run directory; returns all that was."""
        done = [await self._put_back(*one) for one in tuple(self._servers.items())]
        return PutBack(
            any(one.control for one in done),
            tuple(chain.from_iterable(one.maps for one in done)),
            tuple(chain.from_iterable(one.failed for one in done)),
        )

    async def _put_back(self, template_id: str, server: PageServer) -> PutBack:
        try:
            forks = self._handover.running_forks(template_id)
            return await server.put_back({fork.id: self._layout.page_map(fork.id) for fork in forks})
        except PageServerError as error:
            # It may be of a version that cannot, or about to be replaced; and nothing of it missing.
            maps = [self._layout.page_map(fork.id) for fork in self._handover.running_forks(template_id)]
            paths = (self._layout.control_socket(template_id), *maps)
            missing = await asyncio.to_thread(lambda: [path for path in paths if not path.exists()])
            return PutBack(False, (), (error.message,) if missing else ())

    def listening(self, template_id: str) -> ProcessIdentity | None:
        """Return the page server that listens for a template, whatever its record says. Blocks."""
        listener = listener_at(self._layout.control_socket(template_id))
        found = identity_of(listener[0]) if listener else None
        return found if found is not None and is_page_server(found, self._layout, template_id) else None

    def _end(self, template_id: str, identity: ProcessIdentity) -> None:
        """Kill a page server and wait until it is gone; what else may have its pid is let alone. Blocks."""
        if is_page_server(identity, self._layout, template_id):
            end(identity)

    async def _found(self, template: TemplateRecord, identity: ProcessIdentity) -> PageServer:
        if not await asyncio.to_thread(is_page_server, identity, self._layout, template.id):
            raise PageServerError(
                f"page server of {self._events.whose(template.id)}, pid {identity.pid}, is not alive, or another "
                "process has its pid"
            )
        return await PageServer.connect(
            template_id=template.id,
            control=self._layout.control_socket(template.id),
            layers=[self._layout.data_dir / name for name in template.layers],
            pid=identity.pid,
            start_time=identity.start_time,
            on_event=self._events.of(template.id),
            whose=self._events.whose(template.id),
        )

    def begin_recording(self, fork: InstanceRecord) -> bool:
        """Return whether a fork that is about to be loaded records its template's hot pages: one does at a time.

        It is the one from here on, until its recording has ended or it is released.
        """
        template = self._inventory.templates[fork.template_id or ""]
        wanted = fork.record_hot_pages == "on" or (fork.record_hot_pages == "auto" and not template.recorded_pages)
        if not wanted or self._inventory.publisher.recorder(template.id) is not None:
            return False
        self._inventory.publisher.set_recording(fork.id, template.id)
        return True

    async def release(self, record: InstanceRecord) -> None:
        """Tell the page server of this fork's template that the fork's VMM is gone, or needs it no more."""
        self._inventory.publisher.set_recording(record.id, None)
        self._handover.forget(record.id)
        server = self._servers.get(record.template_id or "")
        if server is not None:
            with contextlib.suppress(PageServerError):
                await server.release(record.id)

    async def stop(self, template_id: str) -> None:
        """End the page server of a template that no fork holds; PageServerError where it does not go."""
        step("stop page server")
        async with self._starting.hold(template_id):
            server = self._servers.pop(template_id, None)
            if server is not None:
                try:
                    await server.stop()
                except PageServerError:
                    # It is still there, and to be ended before its template goes.
                    self._servers[template_id] = server
                    raise
            # One that was killed had no time for it, and there is no next one at this path.
            remove_file(self._layout.control_socket(template_id))
        self._backoff.pop(template_id, None)

    async def close(self) -> None:
        """Stop the page servers that no fork needs and let go of the others, which go on."""
        await self._background.cancel()
        servers, self._servers = self._servers, {}
        for template_id, server in servers.items():
            template = self._inventory.templates.get(template_id)
            # A record that is set aside may be of a fork which needs it.
            needed = self._inventory.unreadable or (
                template is not None and self._inventory.forest.fork_count(template.instance_id)
            )
            if not needed:
                try:
                    await server.stop()
                except PageServerError as error:
                    self._report("warning", error.message, self._events.source(template_id))
                    await server.disconnect()
                else:
                    await self._events.update(template_id, page_server=None)
            else:
                await server.disconnect()

    def _follow(self, template_id: str, server: PageServer) -> None:
        self._servers[template_id] = server
        server.exited.add_done_callback(lambda exited: self._exited(template_id, server, exited))
        self._background.spawn(self._watch(template_id, server))

    def _exited(self, template_id: str, server: PageServer, exited: "asyncio.Future[int | None]") -> None:
        if not exited.cancelled():
            self._background.spawn(self._on_exit(template_id, server))

    async def _watch(self, template_id: str, server: PageServer) -> None:
        """Ask the page server for a sign of life until it ends; kill it when it gives none."""
        liveness = Liveness(server.pid)
        while self._servers.get(template_id) is server and not server.exited.done():
            try:
                await server.ping(seconds=STOPPED_BOUND)
                liveness.answered()
                await self._handover.hand_over_missed(template_id, server)
            except PageServerError:
                if not server.exited.done() and liveness.unanswered():
                    what = f"the page server (pid {server.pid}) of {self._events.whose(template_id)} has not answered"
                    told = f"{what} for {liveness.silent_seconds:.1f} s; it is replaced"
                    self._report("alarm", told, self._events.source(template_id), shown=True)
                    server.kill()
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_PERIOD):
                    await asyncio.shield(server.exited)

    async def _on_exit(self, template_id: str, server: PageServer) -> None:
        if self._servers.get(template_id) is not server:
            return
        del self._servers[template_id]
        self._backoff[template_id].died()
        forks = self._handover.running_forks(template_id)
        source = self._events.source(template_id)
        what = f"the page server (pid {server.pid}) of {self._events.whose(template_id)} died"
        self._report("alarm", f"{what}, and has left {how_many(len(forks), 'running fork')}", source, shown=True)
        # Guests wait: the disk may be slow. What the record is to say of the next comes after this.
        async with beside(self._events.update(template_id, page_server=None)) as noted:
            if forks:
                await self._replace(template_id)
            await noted
        why = await asyncio.to_thread(out_of_memory, server.pid, server.start_time)
        if why is not None:
            self._report("warning", f"{what}: {why}", source)

    async def _replace(self, template_id: str) -> None:
        """Start page servers until one serves the template's forks."""
        while self._handover.running_forks(template_id):
            delay = self._backoff[template_id].delay()
            if delay:
                told = f"the page servers of {self._events.whose(template_id)} die; the next starts in {delay:.1f} s"
                self._report("alarm", told, self._events.source(template_id), shown=True)
                await asyncio.sleep(delay)
            forks = self._handover.running_forks(template_id)
            if not forks:
                return
            began = time.monotonic()
            try:
                server = await self.serving(template_id)
            except PageServerError as error:
                self._backoff[template_id].died()
                source = self._events.source(template_id)
                self._report("alarm", error.message, source, error=ErrorBody.of(error))
                continue
            took = (time.monotonic() - began) * 1e3
            served = sum(fork.id in server.forks for fork in forks)
            some = "" if served == len(forks) else f"{served} of "
            done = f"page server {server.pid} took over {some}{how_many(len(forks), 'fork')} in {took:.0f} ms"
            self._report("warning", done, self._events.source(template_id))
            self.restarts += 1
            template = self._inventory.templates.get(template_id)
            if template is not None:
                await self._events.update(template_id, page_server_restarts=template.page_server_restarts + 1)
            return
