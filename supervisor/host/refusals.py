"""Refusals that concern more than who asked: whoever looks on is told of them."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from supervisor.errors import InsufficientResourcesError, LayerError
from supervisor.models import ErrorBody, Level
from supervisor.models.base import Report

TOLD: Final[Mapping[str, Level]] = {InsufficientResourcesError.code: "warning", LayerError.code: "alarm"}
"""By the error's code: what the host has no room for, and memory that is not what it was."""
AGAIN_SECONDS: Final = 10.0
"""Within which the same refusal of an instance is told once: who is refused may ask in a loop."""


class Refusals:
    """Tells of each kind for an instance once in a while."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._told: dict[tuple[str | None, str], float] = {}

    def tell(self, error: ErrorBody, instance_id: str | None) -> None:
        """Tell of a request that was refused with this error, where others are to know."""
        level, key, now = TOLD.get(error.code), (instance_id, error.code), self._clock()
        self._told = {one: at for one, at in self._told.items() if now < at + AGAIN_SECONDS}
        if level is not None and key not in self._told:
            self._told[key] = now
            self._report(level, error.message, instance_id, error=error)
