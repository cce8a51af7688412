"""What VMMs and page servers have in the run directory, after somebody has removed something there."""

from typing import Final, NamedTuple

from supervisor.errors import ConsoleHolderError
from supervisor.runtime.consoles import Consoles
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.vmms import LostSocket, Vmms
from supervisor.store.inventory import Inventory

NAMED: Final = 5
"""How many VMs are named before the rest is counted."""


class PutBackFiles(NamedTuple):
    """What is there again, what could not be put back, and what is lost for good, each in words."""

    made: tuple[str, ...]
    failed: tuple[str, ...]
    lost: tuple[str, ...]


class RunFiles:
    """What is page servers' is put back. A VMM's socket cannot be: it is told on the instance what that means."""

    def __init__(self, inventory: Inventory, vmms: Vmms, page_servers: PageServers, consoles: Consoles) -> None:
        self._inventory = inventory
        self._vmms = vmms
        self._page_servers = page_servers
        self._consoles = consoles

    async def put_back(self) -> PutBackFiles:
        """Have put back what can be, and show on each instance what cannot; each loss is told once."""
        done = await self._page_servers.put_back()
        made = ["control sockets of page servers"] if done.control else []
        if done.maps:
            made.append("a page map" if len(done.maps) == 1 else f"{len(done.maps)} page maps")
        failed = list(done.failed)
        try:
            if await self._consoles.put_back():
                made.append("the console holder's control socket")
        except ConsoleHolderError as error:
            failed.append(error.message)
        return PutBackFiles(tuple(made), tuple(failed), self._tell_lost_sockets())

    def _tell_lost_sockets(self) -> tuple[str, ...]:
        lost = self._vmms.out_of_place()
        asked: list[str] = []
        unasked: list[str] = []
        for record in tuple(self._inventory.instances.values()):
            socket = lost.get(record.id)
            told = None if socket is None else _problem(socket)
            if self._inventory.publisher.set_problem(record, "api", told) and socket is not None:
                (asked if socket.reachable else unasked).append(record.name)
        found = []
        if asked:
            found.append(f"the API sockets of {_names(asked)}, which this supervisor alone still reaches")
        if unasked:
            found.append(f"the API sockets of {_names(unasked)}, which can be stopped or deleted, and no more")
        return tuple(found)


def _problem(socket: LostSocket) -> str:
    gone = f"its API socket {socket.path} is gone"
    if socket.reachable:
        return f"{gone}: only the supervisor that runs now still reaches it; put it to standby while that runs"
    return f"{gone}: it runs on, and stop and delete end it; standby and checkpoint cannot be asked of it"


def _names(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
