"""How long the phases of one operation take."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from supervisor.models import Phase


@dataclass
class Stopwatch:
    """Collects phases."""

    phases: list[Phase] = field(default_factory=list)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase; one that raises is not counted."""
        began = time.monotonic()
        yield
        self.phases.append(Phase(name=name, milliseconds=round((time.monotonic() - began) * 1e3, 3)))
