"""Fan-outs as they are told of: how many forks each has made, what failed, how it ended, and the last ones of them."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from supervisor.concurrency.progress import Operation
from supervisor.models import Event, FanOutChanged, FanOutEstimate, FanOutFailure, FanOutProgress
from supervisor.models.errors import ErrorBody
from supervisor.store.publisher import STEP_SHOWN
from supervisor.store.views import operation_view

KEPT: Final = 8
"""Fan-outs that are told of after their end, to who begins to listen."""
FAILURES_TOLD: Final = 8
"""Of one fan-out: most often all have one cause."""


@dataclass
class ShownFanOut:
    """One fan-out, while it is made and after that."""

    estimate: FanOutEstimate
    concurrency: int
    operation: Operation | None = None
    """None before it has begun."""
    failed: int = 0
    failures: list[FanOutFailure] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None

    def fail(self, name: str, error: ErrorBody) -> None:
        """Count a fork that came to nothing by itself: not one that a cancelled fan-out did not make."""
        self.failed += 1
        if len(self.failures) < FAILURES_TOLD:
            self.failures.append(FanOutFailure(name=name, error=error))

    def view(self, operation: Operation) -> FanOutProgress:
        """Return it as it is at the moment."""
        return FanOutProgress(
            operation=operation_view(operation),
            concurrency=self.concurrency,
            failed=self.failed,
            failures=tuple(self.failures),
            milliseconds=round(((self.ended or time.monotonic()) - self.began) * 1e3, 3),
            fits=self.estimate.fits,
            limiting=self.estimate.limiting,
        )


class ShownFanOuts:
    """Publishes each fan-out: its beginning, its end, and between those what is new, some times a second."""

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self._publish = publish
        self._shown: list[ShownFanOut] = []

    def __call__(self) -> tuple[FanOutProgress, ...]:
        """Return those in progress and the last ones that have ended, the oldest first."""
        return tuple(shown.view(shown.operation) for shown in self._shown if shown.operation is not None)

    @contextlib.contextmanager
    def showing(self, estimate: FanOutEstimate, concurrency: int) -> Iterator[ShownFanOut]:
        """Tell of a fan-out that begins within the body, to its end with it."""
        shown = ShownFanOut(estimate, concurrency)
        try:
            yield shown
        finally:
            shown.ended = time.monotonic()
            if shown.operation is not None:
                self._tell(shown, shown.operation)

    def begin(self, shown: ShownFanOut, operation: Operation) -> None:
        """Tell that one has begun."""
        shown.operation = operation
        self._shown.append(shown)
        ended = [one for one in self._shown if one.ended is not None]
        for one in ended[: max(len(ended) - KEPT, 0)]:
            self._shown.remove(one)
        self._tell(shown, operation)
        self._follow(shown, operation, _news(shown, operation))

    def _follow(self, shown: ShownFanOut, operation: Operation, before: tuple[object, ...]) -> None:
        if shown.ended is not None:
            return
        now = _news(shown, operation)
        if now != before:
            self._tell(shown, operation)
        asyncio.get_running_loop().call_later(STEP_SHOWN, self._follow, shown, operation, now)

    def _tell(self, shown: ShownFanOut, operation: Operation) -> None:
        self._publish(FanOutChanged(fan_out=shown.view(operation)))


def _news(shown: ShownFanOut, operation: Operation) -> tuple[object, ...]:
    """Return what of one changes while it is in progress."""
    return operation.step, operation.done, operation.cancelled, shown.failed
