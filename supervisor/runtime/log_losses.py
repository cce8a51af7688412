"""What could not be written of consoles and logs, as it is told: on the instance, and once in the host's events."""

from pathlib import Path

from supervisor.consoles.handle import Dropped
from supervisor.models.base import Report
from supervisor.store.inventory import Inventory


class LogLosses:
    """Knows which logs are not written now."""

    def __init__(self, inventory: Inventory, report: Report) -> None:
        self._inventory = inventory
        self._report = report
        self._told: set[Path] = set()

    def tell(self, dropped: Dropped) -> None:
        """Show how many bytes of a log were dropped and why, for as long as that goes on."""
        path, layout = dropped.path, self._inventory.layout
        of_instance = path.parent.name if path.parent.parent == layout.instances else ""
        record = self._inventory.instances.get(of_instance)
        what = f"{path} cannot be written: {dropped.reason}"
        if record is not None:
            told = f"{what}: {dropped.size} bytes were dropped" if dropped.size else None
            self._inventory.publisher.set_problem(record, "console", told)
        name, instance_id = (f"{record.name}: ", record.id) if record is not None else ("", None)
        if dropped.size and path not in self._told:
            self._told.add(path)
            told = f"{name}{what}; what comes is dropped and counted"
            self._report("alarm", told, instance_id, shown=record is not None)
        elif not dropped.size:
            self._told.discard(path)
            self._report("info", f"{name}{path} is written again", instance_id)
