"""The jails of one data directory: which VMM is to have one, made for its start, found again, gone after its end."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Collection
from pathlib import Path

from supervisor.concurrency.tasks import Background
from supervisor.errors import DependencyMissingError, StorageError, check_descriptors
from supervisor.jails import roots
from supervisor.jails.found import Found, find, foreign_uids
from supervisor.jails.needs import Needs, needs, problem_of
from supervisor.jails.quarters import OPTIONS, InJail
from supervisor.models import JailMode
from supervisor.rules.jail import JailOptions, Limits, jailed, limits
from supervisor.settings import Settings
from supervisor.snapshots.written_files import Written
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord
from supervisor.store.uids import Uids
from supervisor.system.cgroup_limits import CgroupLimits, CgroupUsage
from supervisor.system.own_cgroups import CgroupsMissingError, OwnCgroups
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.jailer import PreparedProgram, jailer_command, prepare_program

OFF = "jails are off: start the supervisor with --jail auto"
NOT_LOOKED = "nobody has looked yet"


class Jails:
    """Whether or not VMMs that start now have one, those that have one are known, and can be asked for everything."""

    def __init__(self, inventory: Inventory, settings: Settings, uids: Uids, firecracker: Hypervisor | str) -> None:
        self._inventory = inventory
        self._settings = settings
        self._firecracker = firecracker
        self._options = JailOptions(
            settings.jail, settings.jail_memory_overhead, settings.jail_pids, settings.jail_cpu_weight
        )
        self._uids = uids
        self._found: Found | None = None
        self._cgroups: OwnCgroups | None = None
        self._background = Background("the removal of a jail")
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """What removes the cgroup of an instance whose VMM has ended."""
        self.problem: str | None = NOT_LOOKED
        """Why no VMM that starts now has one; None where those of Firecracker do."""

    @property
    def mode(self) -> JailMode:
        """What was asked for: auto, on or off."""
        return self._options.mode

    @property
    def _layout(self) -> Layout:
        return self._inventory.layout

    async def begin(self) -> None:
        """Find out what there is to make jails with, and what an earlier supervisor has left; records are read."""
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        settings, layout = self._settings, self._layout
        roots.sweep_aside(layout)
        if self._options.mode == "off":
            self.problem = OFF
        else:
            bounds = limits(self._options, 0, 1, ())
            found = find(layout, settings.jailer, self._firecracker, settings.jail_uid_range, bounds)
            if isinstance(found, str):
                self.problem = found
            else:
                self.problem, self._found, self._cgroups = None, found, found.cgroups
        if self._cgroups is None and any(record.jail_uid for record in self._inventory.instances.values()):
            # Its processes are found and ended by the record then, and held to nothing.
            with contextlib.suppress(OSError):
                self._cgroups = OwnCgroups.open(settings.data_dir, weighted=False)
        recorded = {record.jail_uid for record in self._inventory.instances.values()}
        recorded |= {template.page_server_uid for template in self._inventory.templates.values()}
        self._uids.avoid(foreign_uids(settings.jail_uid_range, recorded))

    def housed(self, record: InstanceRecord, directory: Path) -> InstanceRecord:
        """Return the record of an instance that is about to be started as it is to be written before. Blocks.

        Its machine is that of a `directory`.

        Raises DependencyMissingError where it has to be in a jail, and cannot; InsufficientResourcesError without a
        uid.
        """
        own = problem_of(directory) if self.problem is None else None
        if not jailed(record.name, record.hypervisor, self._options.mode, self.problem, own):
            return record.model_copy(update={"jail_uid": None})
        return record if record.jail_uid is not None else record.model_copy(update={"jail_uid": self._uids.free()})

    async def prepare(self, record: InstanceRecord, *, boots: bool) -> InJail:
        """Make the jail of an instance whose record says whose it is, for a boot or for a load.

        Raises DependencyMissingError and StorageError.
        """
        leaving = self._leaving.get(record.id)
        if leaving is not None:
            # It would take the next one's cgroup for its own.
            await asyncio.wait((leaving,))
        return await asyncio.to_thread(self._prepare, record, boots=boots)

    def _prepare(self, record: InstanceRecord, *, boots: bool) -> InJail:
        found, uid = self._found, record.jail_uid
        if found is None or uid is None:
            raise DependencyMissingError(f"{record.name}: there is no jail for it: {self.problem}")
        directory = self._layout.instance(record.id)
        its = needs(record, directory, boots=boots)
        bounds = limits(self._options, its.memory_bytes, record.vcpus, _sizes(directory, its))
        program = self._make(record, uid, found, its, bounds)
        command = jailer_command(
            found.jailer,
            program,
            instance_id=record.id,
            uid=uid,
            gid=self._uids.gid,
            jails=self._layout.jails,
            parent_cgroup=found.cgroups.parent(record.id) if found.helper is None else None,
            file_bytes=bounds.file_bytes,
            # No more than the supervisor itself may have: the jailer would want CAP_SYS_RESOURCE for that.
            open_files=min(bounds.open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
            options=OPTIONS,
        )
        return InJail(self._layout, record.id, self._cgroups, command, found.helper)

    def _make(self, record: InstanceRecord, uid: int, found: Found, its: Needs, bounds: Limits) -> PreparedProgram:
        """Make the cgroup and the root of a VMM; returns what is started there, which that has a link of."""
        assert isinstance(self._firecracker, Hypervisor)
        try:
            program = prepare_program(self._layout.jails, self._firecracker)
            found.cgroups.make(record.id, CgroupLimits(bounds.memory_bytes, bounds.pids, bounds.cpu_weight))
            try:
                roots.make_root(self._layout, record.id, uid, self._uids.gid, its, program.vmm)
            except OSError:
                found.cgroups.remove(record.id)
                raise
        except CgroupsMissingError as error:
            raise DependencyMissingError(f"{record.name}: {error}") from error
        except OSError as error:
            what, path = f"{record.name}: its jail cannot be made", error.filename or self._layout.jail(record.id)
            check_descriptors(error, what)
            if path == self._firecracker.command[0]:
                raise DependencyMissingError(f"{what}: {path}: {error.strerror}; put it back") from error
            raise StorageError(
                f"{what}: {path}: {error.strerror}; free space or make the data directory writable"
            ) from error
        return program

    def bring_sockets(self, record: InstanceRecord, pid: int) -> None:
        """Have the vsock device of a VMM that has come to run in a jail reached as that of any other. Blocks."""
        if record.jail_uid is not None:
            its = needs(record, self._layout.instance(record.id), boots=False)
            with contextlib.suppress(OSError):
                roots.bring_sockets(self._layout, record.id, pid, its)

    def has(self, instance_id: str, pid: int) -> bool:
        """Return whether a process is what an instance's jailer was started as, or what that started. Blocks."""
        return self._cgroups is not None and self._cgroups.has(instance_id, pid)

    def usage(self, instance_id: str) -> CgroupUsage | None:
        """Return what all uses that runs in an instance's jail; None where it has none. Blocks."""
        return None if self._cgroups is None else self._cgroups.usage(instance_id)

    def quarters(self, record: InstanceRecord) -> InJail:
        """Return the jail of an instance that runs in one."""
        return InJail(self._layout, record.id, self._cgroups)

    def written(self, record: InstanceRecord) -> Written:
        """Return where the VMM of an instance writes its snapshots, and whose they are."""
        if record.jail_uid is None:
            return Written(self._layout.instance(record.id), os.geteuid())
        return Written(self._layout.jail_root(record.id), record.jail_uid, self._uids.gid)

    def clear(self, instance_id: str) -> None:
        """Have the jail of an instance removed, if it has one: its VMM has ended."""
        aside = roots.set_aside(self._layout, instance_id)
        if aside is not None:
            self._background.spawn(asyncio.to_thread(roots.remove, aside))
            if self._cgroups is not None:
                leaving = self._background.spawn(asyncio.to_thread(_leave, self._cgroups, instance_id))
                self._leaving[instance_id] = leaving
                leaving.add_done_callback(lambda _: self._left(instance_id, leaving))

    def _left(self, instance_id: str, leaving: "asyncio.Task[None]") -> None:
        if self._leaving.get(instance_id) is leaving:
            del self._leaving[instance_id]

    def sweep(self, kept: Collection[str]) -> None:
        """Remove the jails and cgroups of all instances but these, and end what is in them. Blocks."""
        cgroups = self._cgroups
        for instance_id in cgroups.instances() if cgroups is not None else ():
            if instance_id not in kept and cgroups is not None:
                with contextlib.suppress(OSError):
                    cgroups.kill(instance_id)
                _leave(cgroups, instance_id)
        roots.sweep(self._layout, kept)

    async def close(self) -> None:
        """Wait until what was to be removed is; cgroups of VMs that run stay."""
        await self._background.join()
        if self._cgroups is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._cgroups.leave)


def _leave(cgroups: OwnCgroups, instance_id: str) -> None:
    """Remove a cgroup whose last process has ended, which its last thread may not have yet."""
    with contextlib.suppress(OSError):
        cgroups.until_empty(instance_id)
        cgroups.remove(instance_id)


def _sizes(directory: Path, its: Needs) -> list[int]:
    return [(directory / name).stat().st_size for name in its.writable]
