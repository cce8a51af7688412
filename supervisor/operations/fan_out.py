"""Many forks of one instance in one request."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final, TypeVar

from supervisor.admission.controller import Admission, Promise
from supervisor.concurrency.progress import Operation, step, uncancelled
from supervisor.errors import (
    BadRequestError,
    InvalidStateError,
    LayerError,
    MachineFileError,
    NotFoundError,
    OperationCancelledError,
    SupervisorError,
)
from supervisor.models import (
    ErrorBody,
    Event,
    FanOutChild,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    State,
    how_many,
)
from supervisor.models.base import Report
from supervisor.operations.forks import Forks, name_prefix
from supervisor.operations.holding import Holding
from supervisor.operations.in_progress import InProgress
from supervisor.operations.instances import Instances
from supervisor.operations.shown_fan_outs import ShownFanOut, ShownFanOuts
from supervisor.remedies import Remedy
from supervisor.rules.fork_plan import ForkPlan
from supervisor.rules.lifecycle import Verb
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.store.registry import new_id

FAN_OUT: Final = "fan-out"
"""Its name among the operations."""
DELETED_AT_ONCE: Final = 8

T = TypeVar("T")

_log = logging.getLogger(__name__)


class FanOut:
    """Makes many children, so many at a time; each succeeds or fails by itself.

    One that is cancelled begins no more of them, and those that it is at come to nothing. What is made by then stays,
    or goes where that was asked for.
    """

    def __init__(
        self,
        inventory: Inventory,
        in_progress: InProgress,
        holding: Holding,
        forks: Forks,
        instances: Instances,
        admission: Admission,
        report: Report,
        publish: Callable[[Event], None],
    ) -> None:
        self.shown = ShownFanOuts(publish)
        self._inventory = inventory
        self._in_progress = in_progress
        self._holding = holding
        self._forks = forks
        self._instances = instances
        self._admission = admission
        self._report = report

    async def estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many forks fit, what limits them, and what `count` of them take."""

        async def look(source: InstanceRecord) -> FanOutEstimate:
            return await self._admission.estimate(source, await self._plan(source, request), request.count)

        return await self._look(self._inventory.resolve(reference), look)

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        """Make `count` children, `concurrency` at a time.

        Raises InsufficientResourcesError where they do not fit, unless `force` is given.
        """
        source = self._inventory.resolve(reference)
        self._holding.check_stays(source, Verb.FORK)
        async with contextlib.AsyncExitStack() as admitted:

            async def admit(source: InstanceRecord) -> Promise:
                plan = await self._plan(source, request)
                admission = self._admission.admit(source, plan, request.count, force=request.force)
                return await admitted.enter_async_context(admission)

            promise = await self._look(source, admit)
            began = time.monotonic()
            with (
                self.shown.showing(promise.estimate, request.concurrency) as shown,
                self._in_progress.begin(FAN_OUT, source.id, source.name) as operation,
            ):
                operation.total, operation.unit = request.count, "forks"
                self.shown.begin(shown, operation)
                step("fork")
                children = await self._make_all(source, request, promise, operation, shown)
                if operation.cancelled is not None and operation.deletes_made:
                    children = await self._delete_made(children, operation)
        failed = sum(made.error is not None for made in children)
        milliseconds = (time.monotonic() - began) * 1e3
        outcome = f"{len(children) - failed} of {how_many(len(children), 'fork')} in {milliseconds:.0f} ms"
        why = f"; it was cancelled: {operation.cancelled}" if operation.cancelled else ""
        self._report("warning" if failed else "info", f"{source.name}: fan-out made {outcome}{why}", source.id)
        return FanOutResult(children=children, milliseconds=milliseconds)

    async def _make_all(
        self,
        source: InstanceRecord,
        request: FanOutRequest,
        promise: Promise,
        operation: Operation,
        shown: ShownFanOut,
    ) -> tuple[FanOutChild, ...]:
        prefix = request.name_prefix or name_prefix(source.name)
        # Taken now, all of them: another fan-out picks from what is left.
        ids = {name: new_id() for name in islice(self._inventory.free_names(prefix), request.count)}
        places = asyncio.Semaphore(request.concurrency)

        async def make(name: str) -> FanOutChild:
            async with places:
                try:
                    made = await self._make(source.id, name, request, ids[name], operation)
                finally:
                    promise.fulfil()
            if made.error is None:
                operation.done += 1
            elif made.error.code != OperationCancelledError.code:
                shown.fail(name, made.error)
            return made

        with contextlib.ExitStack() as reserved:
            for name, child_id in ids.items():
                reserved.enter_context(self._inventory.reserved(name, child_id))
            return tuple(await asyncio.gather(*map(make, ids)))

    async def _make(
        self, source_id: str, name: str, request: FanOutRequest, child_id: str, operation: Operation
    ) -> FanOutChild:
        try:
            operation.check()
            made = await self._forks.make(source_id, name, request, child_id)
            return FanOutChild(name=name, instance=self._inventory.publisher.view(made))
        except OperationCancelledError as error:
            # One that was cancelled by itself is as one that failed.
            operation.cut_short |= operation.cancelled is not None
            failure = ErrorBody.of(error)
        except SupervisorError as error:
            failure = ErrorBody.of(error)
        except Exception as error:
            # A defect in one child's making is not to sink the others.
            _log.exception("fork %s failed", name)
            failure = ErrorBody(code=SupervisorError.code, message=f"{name}: {error!r}")
        return FanOutChild(name=name, error=failure)

    async def _delete_made(self, children: tuple[FanOutChild, ...], operation: Operation) -> tuple[FanOutChild, ...]:
        """Delete what was made, and return the children as they are after it."""
        step("delete forks")
        operation.cut_short = True
        places = asyncio.Semaphore(DELETED_AT_ONCE)

        async def delete(child: FanOutChild) -> FanOutChild:
            if child.instance is None:
                return child
            async with places:
                try:
                    await self._instances.delete(child.instance.id)
                except NotFoundError:
                    pass
                except SupervisorError as error:
                    return FanOutChild(name=child.name, instance=child.instance, error=ErrorBody.of(error))
            operation.done -= 1
            return FanOutChild(name=child.name, error=ErrorBody.of(operation.cancellation()))

        with uncancelled():
            return tuple(await asyncio.gather(*map(delete, children)))

    async def _look(self, source: InstanceRecord, look: Callable[[InstanceRecord], Awaitable[T]]) -> T:
        """Return what `look` finds of a source that nobody holds.

        What it misses a verb may be about to take away: it is held then, and looked at once more.
        """
        try:
            return await look(source)
        except (LayerError, MachineFileError):
            async with self._holding.hold(source.id, FAN_OUT) as held:
                return await look(held)

    async def _plan(self, source: InstanceRecord, request: FanOutRequest) -> ForkPlan:
        if request.from_running:
            raise BadRequestError(
                f"{source.name}: fan-out refused: it needs a source at rest, and only a single fork copies what runs",
                remedy=Remedy.WITHOUT_FROM_RUNNING,
            )
        if source.state is State.RUNNING:
            raise InvalidStateError(f"{source.name}: fan-out refused: it is Running; put it to standby first")
        return await self._forks.plan(source, request)
