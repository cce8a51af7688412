"""Forks that run, handed to a page server that is not the one which they were loaded with."""

import asyncio
from collections.abc import Iterable
from typing import Final

from supervisor.errors import PageServerError
from supervisor.models.base import Report
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.uffd.handle import PageServer

UNSERVED: Final = "its guest waits where it needs a page, and reads no wrong one; stop and delete end it"


class Handover:
    """Hands forks over, and knows those that could not be: they run, and nobody answers their page faults."""

    def __init__(self, inventory: Inventory, report: Report) -> None:
        self._inventory = inventory
        self._report = report
        self._missed: set[str] = set()

    def running_forks(self, template_id: str) -> list[InstanceRecord]:
        """Return the forks that need a page server of this template now."""
        return [
            record
            for record in self._inventory.instances.values()
            if record.template_id == template_id and record.served_over_uffd and record.process is not None
        ]

    async def hand_over(self, forks: Iterable[InstanceRecord], server: PageServer) -> None:
        """Have forks served on by this page server; one that cannot be is reported once, and tried again."""
        await asyncio.gather(*(self._hand_over(fork, server) for fork in forks))

    async def hand_over_missed(self, template_id: str, server: PageServer) -> None:
        """Try again what has failed: descriptors may have been short."""
        for fork in self.running_forks(template_id) if self._missed else ():
            if fork.id in self._missed:
                await self._hand_over(fork, server)

    def forget(self, fork_id: str) -> None:
        """Stop trying for a fork that needs no page server any more."""
        self._missed.discard(fork_id)

    async def _hand_over(self, fork: InstanceRecord, server: PageServer) -> None:
        if fork.process is None:
            return
        publisher = self._inventory.publisher
        publisher.set_recording(fork.id, None)
        try:
            await server.adopt(
                fork.id,
                page_map=self._inventory.layout.page_map(fork.id),
                vmm_pid=fork.process.pid,
                nothing_removed=fork.gives_memory_back is False,
            )
        except PageServerError as error:
            told = f"its page faults are not answered: {error.message}"
            if publisher.set_problem(fork, "memory", f"{told}; {UNSERVED}"):
                self._report("alarm", f"{fork.name}: {told}", fork.id, shown=True)
            self._missed.add(fork.id)
        else:
            publisher.set_problem(fork, "memory", None)
            if fork.id in self._missed:
                self._report("info", f"{fork.name}: page server {server.pid} answers its page faults", fork.id)
            self._missed.discard(fork.id)
