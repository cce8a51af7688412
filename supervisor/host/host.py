"""The one object that the API speaks to: the verbs here, what changes nothing in `queries`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final, TypeVar

from supervisor.concurrency.progress import asked_by
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.host import capabilities
from supervisor.host.event_bus import EventBus
from supervisor.host.parts import Parts
from supervisor.host.queries import Queries
from supervisor.host.refusals import Refusals
from supervisor.models import (
    AcceptRequest,
    Activity,
    BuildImageRequest,
    CheckpointRequest,
    CreateRequest,
    DeletionPlan,
    ErrorBody,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    ForkRequest,
    HostSnapshot,
    HypervisorName,
    ImageInfo,
    Instance,
    Jails,
    Level,
    MadeImage,
    Operation,
)
from supervisor.operations.fan_out import FAN_OUT
from supervisor.operations.images import Part
from supervisor.runtime.console_input import Console
from supervisor.runtime.run_files import PutBackFiles
from supervisor.settings import Settings
from supervisor.store.layout import PAGES_MODE
from supervisor.store.records import InstanceRecord
from supervisor.store.views import operation_view
from supervisor.vmm.hypervisor import Hypervisor, available, select_hypervisor

Outcome = TypeVar("Outcome")

GRACE: Final = 2.0
"""Seconds that verbs under way have when the supervisor is to stop, but for the long ones."""
CANCEL_SECONDS: Final = 30.0
"""For which whoever cancels an operation waits for its end."""
STOPPING: Final = "the supervisor is stopping"

LEVELS: Final[dict[Level, int]] = {"info": logging.INFO, "warning": logging.WARNING, "alarm": logging.ERROR}

_log = logging.getLogger(__name__)


class Host:
    """The VMs, templates and page servers of one data directory. References are ids, names or unique id prefixes."""

    def __init__(
        self, settings: Settings, hypervisor: Hypervisor, found: Mapping[HypervisorName, Hypervisor | str]
    ) -> None:
        self._settings = settings
        self._hypervisor = hypervisor
        self._found = found
        self._verbs: set[asyncio.Task[Any]] = set()
        self.events = EventBus(self._snapshot)
        self._refusals = Refusals(self._report)
        self._parts = Parts(settings, hypervisor.name, found, self.events, self._report)
        problem = found["firecracker"]
        self.queries = Queries(
            self._parts.inventory,
            self._parts.telemetry,
            hypervisor,
            self._parts.fan_out.shown,
            self._parts.probes,
            problem if isinstance(problem, str) else None,
            self._jails,
        )

    @classmethod
    async def open(cls, settings: Settings) -> "Host":
        """Read the records, find again what an earlier supervisor left running, and begin to sample.

        Nothing is spawned that stays: what was lost of page servers and the console holder is replaced after `go_on`.
        Raises DependencyMissingError where the hypervisor that was asked for cannot run here.
        """
        programs = (settings.firecracker, settings.embedded_version)
        hypervisor = await asyncio.to_thread(select_hypervisor, settings.hypervisor, *programs)
        found = await asyncio.to_thread(available, *programs)
        host = cls(settings, hypervisor, found)
        await host._begin()
        return host

    def go_on(self) -> None:
        """Have the page servers and the console holder replaced that were lost while no supervisor ran."""
        self._parts.consoles.go_on()
        self._parts.page_servers.replace_lost()

    async def end_verbs(self) -> None:
        """Begin no more verbs, and have those that are under way end: cancelled where they are long or take long.

        What answers to no cancellation is waited for: whoever stops the host bounds that.
        """
        in_progress = self._parts.in_progress
        in_progress.stop()
        for operation in in_progress:
            if operation.total is not None:
                operation.cancel(STOPPING)
        if self._verbs:
            await asyncio.wait(self._verbs, timeout=GRACE)
        in_progress.cancel(STOPPING)
        await asyncio.gather(*self._verbs, return_exceptions=True)

    async def close(self) -> None:
        """Let go of everything; VMs, and the page servers that forks need, go on."""
        parts = self._parts
        parts.telemetry.stop()
        parts.catalog.stop()
        await parts.unpausing.close()
        await self.end_verbs()
        await parts.readying.close()
        await parts.background.join()
        self.events.close()
        await parts.vmms.close()
        await parts.jails.close()
        await parts.page_servers.close()
        await parts.consoles.close()

    async def put_back_run_files(self) -> PutBackFiles:
        """Have VMMs and page servers looked at after something was removed in the run directory."""
        return await self._parts.run_files.put_back()

    def report(self, level: Level, message: str) -> None:
        """Tell the log and every client of something that concerns the host as a whole."""
        self._report(level, message, None)

    async def images(self) -> list[ImageInfo]:
        """Return every image, usable or with what is wrong with it."""
        return await self._parts.catalog.images()

    async def build_image(
        self, request: BuildImageRequest, parts: AsyncIterator[Part], bytes_told: int | None
    ) -> MadeImage:
        """Make an image of a kernel, and of a root where one is given."""
        made = await self._finish(self._parts.images.build(request, parts, bytes_told))
        return self._made(made, "built")

    async def add_image(self, name: str, parts: AsyncIterator[Part], bytes_told: int | None) -> MadeImage:
        """Make an image of a directory that is ready, or a snapshot."""
        return self._made(await self._finish(self._parts.images.add(name, parts, bytes_told)), "added")

    async def remove_image(self, name: str) -> None:
        """Remove an image that no instance was made of."""
        await self._finish(self._parts.images.remove(name))
        self._report("info", f"image {name}: removed", None)

    async def create(self, request: CreateRequest) -> Instance:
        """Make a new instance: it boots, or is in Standby where its image is a snapshot."""
        record = await self._finish(self._parts.creation.create(request))
        return self._done(f"created from image {record.image} on {record.hypervisor}", record)

    async def start(self, reference: str) -> Instance:
        """Boot a Stopped instance."""
        return self._done("started", await self._finish(self._parts.instances.start(reference), reference))

    async def stop(self, reference: str) -> Instance:
        """End an instance's VMM."""
        return self._done("stopped", await self._finish(self._parts.instances.stop(reference), reference))

    async def standby(self, reference: str) -> Instance:
        """Snapshot a Running instance and end its VMM."""
        return self._done("in Standby", await self._finish(self._parts.instances.standby(reference), reference))

    async def restore(self, reference: str) -> Instance:
        """Run a Standby instance on."""
        return self._done("restored", await self._finish(self._parts.instances.restore(reference), reference))

    async def detach(self, reference: str) -> Instance:
        """Let a share_memory fork go on without its source."""
        return self._done(
            "detached from its source", await self._finish(self._parts.instances.detach(reference), reference)
        )

    async def accept(self, reference: str, request: AcceptRequest) -> Instance:
        """Take the layers of a Standby instance's memory for what they are."""
        record = await self._finish(self._parts.acceptance.accept(reference, request), reference)
        return self._done("its memory is accepted as it is", record)

    async def fork(self, reference: str, request: ForkRequest) -> Instance:
        """Make one child."""
        return self._view(await self._finish(self._parts.forks.fork(reference, request), reference))

    async def checkpoint(self, reference: str, request: CheckpointRequest) -> Instance:
        """Make a Standby child of a Running instance, which runs on."""
        return self._view(await self._finish(self._parts.forks.checkpoint(reference, request), reference))

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        """Make many children."""
        source_id = self._id_of(reference)
        result = await self._finish(self._parts.fan_out.fan_out(reference, request), reference)
        for child in result.children:
            if child.error is not None:
                self._refusals.tell(child.error, source_id)
        return result

    async def fan_out_estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many children fit, and make none."""
        return await self._parts.fan_out.estimate(reference, request)

    async def delete(self, reference: str, *, cascade: bool = False) -> None:
        """Remove an instance that no fork holds, or with `cascade` the whole tree from it down."""
        if cascade:
            await self._finish(self._parts.deletions.delete_tree(reference), reference)
        else:
            await self._finish(self._parts.instances.delete(reference), reference)

    async def deletion_plan(self, reference: str, *, cascade: bool = False) -> DeletionPlan:
        """Return what `delete` would do."""
        return await self._parts.deletions.plan(reference, cascade=cascade)

    def operations(self) -> list[Operation]:
        """Return what is being done, the oldest first."""
        return list(map(operation_view, self._parts.in_progress))

    def operation(self, operation_id: str) -> Operation:
        """Return one operation in progress."""
        return operation_view(self._parts.in_progress.find(operation_id))

    async def cancel(self, operation_id: str, *, delete_made: bool = False) -> Operation:
        """Have an operation end, and return how it did, or what it is at where that takes long.

        What a fan-out has made by then stays, unless `delete_made`. BadRequestError where that is asked of another one.
        """
        operation = self._parts.in_progress.find(operation_id)
        if delete_made and operation.verb != FAN_OUT:
            raise BadRequestError(
                f"{operation.name}: cancel refused: {operation.verb} makes nothing that would stay; leave made out"
            )
        operation.deletes_made |= delete_made
        operation.cancel(f"{asked_by.get()} asked for that")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await operation.wait()
        return operation_view(operation)

    def capabilities(self) -> dict[str, object]:
        """Return hypeman's Capabilities."""
        return capabilities.describe(metadata.version("forktui"), self._hypervisor.name, self._found, self._jails())

    def console(self, reference: str, *, watch: bool) -> Console:
        """Return an instance's console, to be typed into unless it is only watched."""
        return self._parts.console_inputs.console(self._parts.inventory.resolve(reference), watch=watch)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """Return the host's sums for Prometheus and their content type, by what a request accepts."""
        return await self._parts.metrics.exposition(accept)

    async def _begin(self) -> None:
        parts = self._parts

        def prepare() -> None:
            parts.inventory.registry.open()
            parts.inventory.layout.page_maps.mkdir(mode=PAGES_MODE, exist_ok=True)
            parts.inventory.load()

        await asyncio.to_thread(prepare)
        await parts.layers.probe()
        await parts.jails.begin()
        await parts.consoles.reconnect()
        await parts.recovery.recover()
        await parts.page_servers.reconnect()
        aside = {**parts.inventory.unreadable, **parts.inventory.unreadable_templates}
        for one in aside.values():
            told = f"a record is set aside, and nothing is done by it: {one.reason}"
            self._report("alarm", told, one.instance_id, shown=True)
        if self._settings.firecracker is not None and isinstance(problem := self._found["firecracker"], str):
            self._report("warning", f"no VM runs on firecracker: {problem}", None)
        self._tell_of_jails()
        parts.background.spawn(parts.telemetry.run())
        parts.background.spawn(parts.catalog.watch())

    def _jails(self) -> Jails:
        jails, page_servers = self._parts.jails, self._parts.page_servers
        # Where there is no Firecracker that is said, and why.
        unwanted = jails.mode == "off" or isinstance(self._found["firecracker"], str)
        return Jails(
            mode=jails.mode,
            jailed=jails.problem is None,
            problem=None if unwanted else jails.problem,
            page_servers=page_servers.confined_by,
        )

    def _tell_of_jails(self) -> None:
        """Say why VMs that start have no jail, or that none starts for that."""
        jails = self._parts.jails
        if jails.problem is None or jails.mode == "off" or isinstance(self._found["firecracker"], str):
            return
        if jails.mode == "on":
            self._report("alarm", f"no VM starts: each is to run in a jail, and cannot: {jails.problem}", None)
        else:
            self._report("info", f"VMs run without jails: {jails.problem}", None)

    def _snapshot(self) -> HostSnapshot:
        return self.queries.snapshot()

    def _made(self, image: MadeImage, how: str) -> MadeImage:
        self._report("info", f"image {image.name}: {how}", None)
        return image

    def _view(self, record: InstanceRecord) -> Instance:
        return self._parts.inventory.publisher.view(record)

    def _done(self, what: str, record: InstanceRecord) -> Instance:
        self._report("info", f"{record.name}: {what}", record.id)
        return self._view(record)

    def _report(
        self,
        level: Level,
        message: str,
        instance_id: str | None,
        *,
        error: ErrorBody | None = None,
        shown: bool = False,
    ) -> None:
        _log.log(LEVELS[level], message)
        code, details = (error.code, error.details) if error else (None, ())
        told = {"level": level, "message": message, "instance_id": instance_id, "shown": shown}
        self.events.publish(Activity(at=datetime.now(UTC), code=code, details=details, **told))

    def _id_of(self, reference: str) -> str | None:
        with contextlib.suppress(SupervisorError):
            return self._parts.inventory.resolve(reference).id
        return None

    async def _telling(self, verb: Coroutine[None, None, Outcome], instance_id: str | None) -> Outcome:
        try:
            return await verb
        except SupervisorError as error:
            self._parts.metrics.refused(error.code)
            self._refusals.tell(ErrorBody.of(error), instance_id)
            raise

    async def _finish(self, verb: Coroutine[None, None, Outcome], reference: str = "") -> Outcome:
        """Await a verb, which goes on to its end also when nobody waits for its answer any more."""
        task = asyncio.create_task(self._telling(verb, self._id_of(reference)))
        self._verbs.add(task)
        task.add_done_callback(self._verbs.discard)
        return await asyncio.shield(task)
