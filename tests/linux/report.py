"""What a job has seen, as the tests read it."""

from dataclasses import dataclass
from typing import Any

from tests.linux.told import Tick, ticks


@dataclass(frozen=True)
class Report:
    """What became of one job."""

    job: str
    seconds: float
    seen: dict[str, Any]
    """What it noted down, by name."""
    consoles: dict[str, str]
    """What each guest printed, by its instance's name."""
    steps: list[str]
    """What it did, a line for each."""
    log: str
    """The end of the supervisor's log."""
    stopped: str | None
    """The traceback of what it stopped at; None where it came to its end."""

    def __getitem__(self, name: str) -> Any:
        """Return what was noted down; fails the test where the job did not come so far."""
        assert name in self.seen, f"the job stopped before it saw {name!r}: {self.stopped}"
        return self.seen[name]

    def console(self, instance: str) -> str:
        """Return what a guest printed; fails the test where the job did not come so far."""
        assert instance in self.consoles, f"the job stopped before there was a {instance}: {self.stopped}"
        return self.consoles[instance]

    def ticks(self, instance: str, source: str | None = None) -> list[Tick]:
        """Return a guest's looks at its memory and disk, one at least.

        With a `source` they begin with those of what it was forked of in Standby, which may have stopped in the midst
        of a line.
        """
        before = self.console(source) if source else ""
        assert ticks(self.console(instance)), f"{instance} printed no tick"
        return ticks(before + self.console(instance))
