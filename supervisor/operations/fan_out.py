"""Many forks of one instance in one request."""

import asyncio
import contextlib
import logging
import time
from itertools import islice

from supervisor.admission.controller import Admission, Promise
from supervisor.errors import BadRequestError, InvalidStateError, SupervisorError
from supervisor.models import ErrorBody, FanOutChild, FanOutEstimate, FanOutRequest, FanOutResult, State
from supervisor.models.base import Report
from supervisor.operations.forks import Forks, name_prefix
from supervisor.remedies import Remedy
from supervisor.rules.fork_plan import ForkPlan
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.store.registry import new_id

_log = logging.getLogger(__name__)


class FanOut:
    """Makes many children, so many at a time; each succeeds or fails by itself."""

    def __init__(self, inventory: Inventory, forks: Forks, admission: Admission, report: Report) -> None:
        self._inventory = inventory
        self._forks = forks
        self._admission = admission
        self._report = report

    async def estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many forks fit, what limits them, and what `count` of them take."""
        source = self._inventory.resolve(reference)
        return await self._admission.estimate(source, await self._plan(source, request), request.count)

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        """Make `count` children, `concurrency` at a time.

        Raises InsufficientResourcesError where they do not fit, unless `force` is given.
        """
        source = self._inventory.resolve(reference)
        plan = await self._plan(source, request)
        async with self._admission.admit(source, plan, request.count, force=request.force) as promise:
            began = time.monotonic()
            children = await self._make_all(source, request, promise)
        failed = sum(made.error is not None for made in children)
        milliseconds = (time.monotonic() - began) * 1e3
        outcome = f"{len(children) - failed} of {len(children)} forks in {milliseconds:.0f} ms"
        self._report("warning" if failed else "info", f"{source.name}: fan-out made {outcome}", source.id)
        return FanOutResult(children=children, milliseconds=milliseconds)

    async def _make_all(
        self, source: InstanceRecord, request: FanOutRequest, promise: Promise
    ) -> tuple[FanOutChild, ...]:
        prefix = request.name_prefix or name_prefix(source.name)
        # Taken now, all of them: another fan-out picks from what is left.
        ids = {name: new_id() for name in islice(self._inventory.free_names(prefix), request.count)}
        places = asyncio.Semaphore(request.concurrency)

        async def make(name: str) -> FanOutChild:
            async with places:
                try:
                    return await self._make(source.id, name, request, ids[name])
                finally:
                    promise.fulfil()

        with contextlib.ExitStack() as reserved:
            for name, child_id in ids.items():
                reserved.enter_context(self._inventory.reserved(name, child_id))
            return tuple(await asyncio.gather(*map(make, ids)))

    async def _make(self, source_id: str, name: str, request: FanOutRequest, child_id: str) -> FanOutChild:
        try:
            made = await self._forks.make(source_id, name, request, child_id)
            return FanOutChild(name=name, instance=self._inventory.publisher.view(made))
        except SupervisorError as error:
            failure = ErrorBody.of(error)
        except Exception as error:
            # A defect in one child's making is not to sink the others.
            _log.exception("fork %s failed", name)
            failure = ErrorBody(code=SupervisorError.code, message=f"{name}: {error!r}")
        return FanOutChild(name=name, error=failure)

    async def _plan(self, source: InstanceRecord, request: FanOutRequest) -> ForkPlan:
        if request.from_running:
            raise BadRequestError(
                f"{source.name}: fan-out refused: it needs a source at rest, and only a single fork copies what runs",
                remedy=Remedy.WITHOUT_FROM_RUNNING,
            )
        if source.state is State.RUNNING:
            raise InvalidStateError(f"{source.name}: fan-out refused: it is Running; put it to standby first")
        return await self._forks.plan(source, request)
