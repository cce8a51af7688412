"""What is being done on this host, each operation with an id by which it is found and cancelled."""

import contextlib
import time
from collections.abc import Callable, Iterator

from supervisor.concurrency import progress
from supervisor.concurrency.progress import Operation
from supervisor.errors import NotFoundError, StoppingError
from supervisor.remedies import Remedy
from supervisor.store.publisher import Publisher


class InProgress:
    """Operations from their beginning to their end; shown on their instances meanwhile."""

    def __init__(self, publisher: Publisher, on_end: Callable[[str, str, float], None] = lambda *_: None) -> None:
        """`on_end` is told of each that ends: its verb, its outcome, and the seconds that it took."""
        self._publisher = publisher
        self._on_end = on_end
        self._operations: dict[str, Operation] = {}
        self._stopping = False

    def __iter__(self) -> Iterator[Operation]:
        """Yield those that are in progress, the oldest first."""
        return iter(tuple(self._operations.values()))

    @contextlib.contextmanager
    def begin(self, verb: str, instance_id: str, name: str) -> Iterator[Operation]:
        """Have an operation in progress while the context lasts; StoppingError where nothing is begun any more."""
        if self._stopping:
            raise StoppingError(f"{name}: {verb} refused: the supervisor is stopping; ask the next one")
        began = time.monotonic()
        try:
            with progress.operation(verb, instance_id, name) as operation:
                self._operations[operation.id] = operation
                try:
                    with self._publisher.showing(operation):
                        yield operation
                finally:
                    del self._operations[operation.id]
        finally:
            # A verb that holds two instances has an operation on each, one within the other.
            if operation.part_of is None or operation.part_of.verb != verb:
                self._on_end(verb, operation.outcome or "failed", time.monotonic() - began)

    def find(self, operation_id: str) -> Operation:
        """Return one; NotFoundError where it has ended, or never was."""
        found = self._operations.get(operation_id)
        if found is None:
            raise NotFoundError(
                f"{operation_id}: no operation in progress has this id; it may have ended",
                remedy=Remedy.LIST_OPERATIONS,
            )
        return found

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True

    def cancel(self, why: str) -> None:
        """Have every operation end where it can be ended."""
        for operation in self:
            operation.cancel(why)
