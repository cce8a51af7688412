"""How a VMM is started or taken over: its share of the huge pages, where it runs, what its program tells."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from supervisor.images.readiness import make_way_for_vmm
from supervisor.jails.jails import Jails
from supervisor.models import HypervisorName
from supervisor.runtime import known_faults
from supervisor.runtime.consoles import Consoles
from supervisor.runtime.guest_metadata import prepared
from supervisor.runtime.huge_page_pool import HugePagePool, Share
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord, ProcessIdentity, StartedVmm
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, StartedPrograms, usable
from supervisor.vmm.quarters import InDirectory, Quarters


class Spawning:
    """Starts VMMs, and takes over those that an earlier supervisor has started."""

    def __init__(
        self,
        hypervisors: Mapping[HypervisorName, Hypervisor | str],
        huge_pages: HugePagePool,
        consoles: Consoles,
        layout: Layout,
        jails: Jails,
    ) -> None:
        self._hypervisors = hypervisors
        self._huge_pages = huge_pages
        self._consoles = consoles
        self._layout = layout
        self._jails = jails
        self._programs = StartedPrograms()

    def hypervisor(self, name: HypervisorName) -> Hypervisor:
        """Return a hypervisor that can run here; DependencyMissingError where it cannot."""
        return usable(self._hypervisors, name)

    async def spawn(
        self,
        record: InstanceRecord,
        config_file: str | None,
        meanwhile: Callable[[int], Coroutine[Any, Any, None]] | None = None,
    ) -> Vmm:
        """Start an instance's VMM; what is to be done with its pid can be done while it starts."""
        directory = self._layout.instance(record.id)
        metadata = await prepared(record, directory)
        share = await self._huge_pages.promise(record.name, record.huge_pages)
        boots = config_file is not None
        try:
            await asyncio.to_thread(make_way_for_vmm, record.name, directory)
            quarters = await self._quarters(record, boots=boots)
            vmm = await Vmm.spawn(
                self.hypervisor(record.hypervisor),
                instance_id=record.id,
                quarters=quarters,
                config_file=config_file,
                consoles=self._consoles,
                name=record.name,
                metadata=metadata if boots else None,
                meanwhile=meanwhile,
            )
        except BaseException:
            self._huge_pages.end(share)
            self._jails.clear(record.id)
            raise
        share.pid = vmm.pid
        self._until_its_end(vmm, share)
        return vmm

    async def adopt(self, record: InstanceRecord, process: ProcessIdentity) -> Vmm | None:
        """Take over an instance's VMM; None where it has ended."""
        vmm = await Vmm.adopt(
            instance_id=record.id,
            quarters=self._jails.quarters(record) if record.jail_uid is not None else self._in_directory(record),
            pid=process.pid,
            start_time=process.start_time,
            consoles=self._consoles,
            name=record.name,
        )
        if vmm is not None:
            self._until_its_end(vmm, self._huge_pages.claim(record.huge_pages, vmm.pid))
        return vmm

    async def started(self, record: InstanceRecord, vmm: Vmm, version: str | None) -> StartedVmm:
        """Return what is recorded of a VMM that came to run; DependencyMissingError where it may not."""
        hypervisor = self.hypervisor(record.hypervisor)
        await asyncio.to_thread(self._jails.bring_sockets, record, vmm.pid)
        return await known_faults.started(record, vmm, version, await self._programs.version_of(hypervisor, vmm.pid))

    def snapshot_version(self, record: InstanceRecord, vmm: Vmm) -> str:
        """Return the version of the state-files that an instance's VMM writes; VmmError where nothing tells it."""
        hypervisor = self.hypervisor(record.hypervisor)
        return record.vmm_snapshot_version or self._programs.version_found(
            record.name, hypervisor, vmm.pid, record.firecracker_version
        )

    async def _quarters(self, record: InstanceRecord, *, boots: bool) -> Quarters:
        if record.jail_uid is not None:
            return await self._jails.prepare(record, boots=boots)
        return self._in_directory(record)

    def _in_directory(self, record: InstanceRecord) -> InDirectory:
        return InDirectory(self._layout.instance(record.id), self._layout.api_socket(record.id))

    def _until_its_end(self, vmm: Vmm, share: Share) -> None:
        vmm.exited.add_done_callback(lambda _: self._huge_pages.end(share))
