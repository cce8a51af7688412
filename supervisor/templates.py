"""Promotion of Standby instances, and the page servers of the templates that come of it."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

from supervisor.errors import InvalidStateError, PageServerError
from supervisor.inventory import Inventory
from supervisor.models import Level
from supervisor.records import InstanceRecord, ProcessIdentity, SnapshotFiles, TemplateRecord
from supervisor.registry import new_id
from supervisor.uffd.handle import Failing, Gone, PageServer, PageServerEvent, Policy, Recorded, Refused

PAGE_SIZE = 4096


class Templates:
    """Every template's record, and its page server: started for the first uffd fork, and gone with the promotion."""

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
        self._starting: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def page_servers(self) -> dict[str, int]:
        """The pids of the page servers that run, by template id."""
        return {template_id: server.pid for template_id, server in self._servers.items()}

    async def promote(self, source: InstanceRecord) -> TemplateRecord:
        """Return the template of a Standby instance, made now if there is none; the caller holds the source's lock."""
        existing = self._inventory.template_of(source.id)
        if existing is not None:
            return existing
        snapshot = own_snapshot(source)
        directory = self._inventory.registry.directory(source.id).relative_to(self._data_dir)
        return await self._inventory.save_template(
            TemplateRecord(
                id=new_id(),
                instance_id=source.id,
                layers=tuple(str(directory / layer) for layer in snapshot.layers),
                size_bytes=source.size_bytes,
                page_size=PAGE_SIZE,
                hypervisor=source.hypervisor,
                snapshot_version=snapshot.snapshot_version,
            ),
            new=True,
        )

    async def unpromote(self, instance_id: str) -> None:
        """Undo the promotion of an instance that no fork holds any more."""
        template = self._inventory.template_of(instance_id)
        if template is None:
            return
        server = self._servers.pop(template.id, None)
        if server is not None:
            await server.stop()
        self._starting.pop(template.id, None)
        await self._inventory.remove_template(template.id)

    async def page_server(self, template_id: str) -> PageServer:
        """Return the template's page server, started now if none runs."""
        async with self._starting.setdefault(template_id, asyncio.Lock()):
            running = self._servers.get(template_id)
            if running is not None:
                return running
            template = self._inventory.templates[template_id]
            directory = self._inventory.registry.template_directory(template_id)
            server = await PageServer.spawn(
                template_id=template_id,
                layers=[self._data_dir / layer for layer in template.layers],
                memory_size=template.size_bytes,
                page_size=template.page_size,
                hot_pages=directory / "hot_pages",
                control=self._control(template_id),
                log=directory / "page_server.log",
                policy=self._policy,
                on_event=partial(self._on_event, template_id),
            )
            await self._adopted(template_id, server)
            return server

    async def reconnect(self) -> None:
        """Find the page servers that an earlier supervisor left running."""
        for template in list(self._inventory.templates.values()):
            if template.page_server is None:
                continue
            try:
                server = await PageServer.connect(
                    template_id=template.id,
                    control=self._control(template.id),
                    pid=template.page_server.pid,
                    start_time=template.page_server.start_time,
                    on_event=partial(self._on_event, template.id),
                )
            except PageServerError as error:
                await self._inventory.save_template(template.model_copy(update={"page_server": None}))
                if self._inventory.forest.fork_count(template.instance_id):
                    self._report(
                        "alarm",
                        f"template {template.id}: its page server is gone: {error.message}",
                        template.instance_id,
                    )
            else:
                await self._adopted(template.id, server)

    async def release(self, record: InstanceRecord) -> None:
        """Tell the page server of this fork's template that the fork's VMM is gone."""
        self._inventory.set_recording(record.id, None)
        server = self._servers.get(record.template_id or "")
        if server is not None:
            with contextlib.suppress(PageServerError):
                await server.release(record.id)

    async def close(self) -> None:
        """Stop the page servers that no fork needs and let go of the others, which go on."""
        for template_id, server in list(self._servers.items()):
            template = self._inventory.templates[template_id]
            if self._inventory.forest.fork_count(template.instance_id) == 0:
                del self._servers[template_id]
                await server.stop()
                await self._inventory.save_template(template.model_copy(update={"page_server": None}))
            else:
                await server.disconnect()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _control(self, template_id: str) -> Path:
        return self._run_dir / f"{template_id}.pages"

    async def _adopted(self, template_id: str, server: PageServer) -> None:
        self._servers[template_id] = server
        identity = ProcessIdentity(pid=server.pid, start_time=server.start_time)
        template = self._inventory.templates[template_id]
        if template.page_server != identity:
            await self._inventory.save_template(template.model_copy(update={"page_server": identity}))
        server.exited.add_done_callback(lambda _: self._spawn(self._on_exit(template_id, server)))

    async def _on_exit(self, template_id: str, server: PageServer) -> None:
        if self._servers.get(template_id) is not server:
            return
        del self._servers[template_id]
        template = await self._inventory.save_template(
            self._inventory.templates[template_id].model_copy(update={"page_server": None})
        )
        self._report(
            "alarm",
            f"the page server (pid {server.pid}) of template {template_id} died; its forks wait at their next fault",
            template.instance_id,
        )

    def _on_event(self, template_id: str, event: PageServerEvent) -> None:
        match event:
            case Recorded():
                self._inventory.set_recording(event.fork_id, None)
                self._spawn(self._recorded(template_id, event))
            case Gone():
                self._inventory.set_recording(event.fork_id, None)
            case Failing():
                self._report("alarm", f"a page server cannot provide a page: {event.reason}", event.fork_id)
            case Refused():
                self._report("alarm", f"a peer of the page server was refused: {event.reason}", event.fork_id)

    async def _recorded(self, template_id: str, event: Recorded) -> None:
        template = self._inventory.templates.get(template_id)
        if template is None:
            return
        await self._inventory.save_template(
            template.model_copy(update={"recorded_pages": event.pages, "recorded_runs": event.runs})
        )
        self._report("info", f"recorded {event.pages} hot pages in {event.runs} runs", template.instance_id)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def own_snapshot(record: InstanceRecord) -> SnapshotFiles:
    """Return the snapshot of a Standby instance."""
    if record.snapshot is None:
        raise InvalidStateError(f"{record.name}: it is {record.state} but has no snapshot; delete it")
    return record.snapshot
