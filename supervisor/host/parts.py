"""Composition: which parts a host is made of, and what each is given."""

from collections import Counter
from collections.abc import Mapping
from importlib import metadata

from supervisor.admission.controller import Admission
from supervisor.concurrency.tasks import Background
from supervisor.host.event_bus import EventBus
from supervisor.images.catalog import ImageCatalog
from supervisor.images.threads import ImageThreads
from supervisor.jails.jails import Jails
from supervisor.models import HypervisorName
from supervisor.models.base import Report
from supervisor.operations.acceptance import Acceptance
from supervisor.operations.creation import Creation
from supervisor.operations.deletion import Deletions
from supervisor.operations.fan_out import FanOut
from supervisor.operations.forks import Forks
from supervisor.operations.holding import Holding
from supervisor.operations.image_users import ImageUsers
from supervisor.operations.images import Images
from supervisor.operations.in_progress import InProgress
from supervisor.operations.instances import Instances
from supervisor.operations.readying import Readying
from supervisor.operations.recovery import HostRecovery
from supervisor.operations.snapshots import Snapshots
from supervisor.operations.transitions import Transitions
from supervisor.operations.unpausing import Unpausing
from supervisor.runtime.console_input import ConsoleInputs
from supervisor.runtime.consoles import Consoles
from supervisor.runtime.huge_page_pool import HugePagePool
from supervisor.runtime.log_losses import LogLosses
from supervisor.runtime.page_server_starts import page_server_users
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.readiness_probes import ReadinessProbes
from supervisor.runtime.run_files import RunFiles
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Vmms
from supervisor.settings import Settings
from supervisor.snapshots.layers import Layers
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.registry import Registry
from supervisor.store.uids import Uids
from supervisor.telemetry.metrics import Metrics
from supervisor.telemetry.sampler import Sampler
from supervisor.uffd.handle import Policy
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.process import Exit


class Parts:
    """The parts of one host, from the records up; each knows those that it was given and none above it."""

    def __init__(
        self,
        settings: Settings,
        default_hypervisor: HypervisorName,
        found: Mapping[HypervisorName, Hypervisor | str],
        events: EventBus,
        report: Report,
    ) -> None:
        self._report = report
        self.background = Background("a background task")
        self.inventory = Inventory(Registry(Layout(settings.data_dir, settings.run_dir)), events.publish)
        self.image_threads = ImageThreads()
        self.catalog = ImageCatalog(self.inventory.layout.images, found, report, self.image_threads)
        self._add_runtime(settings, found)
        self._add_operations(default_hypervisor, found)
        self.telemetry = Sampler(
            self.inventory,
            self.page_servers,
            events.publish,
            self.instances.on_ready,
            report,
            lambda: self.consoles.pid,
            self.jails.usage,
        )
        self.metrics = Metrics(
            self.inventory,
            self.page_servers,
            self.telemetry,
            metadata.version("forktui"),
            default_hypervisor,
            lambda: Counter(operation.verb for operation in self.in_progress),
        )
        self._add_bulk_operations(events)
        self.recovery = HostRecovery(
            self.inventory,
            self.transitions,
            self.vmms,
            self.page_servers,
            self.consoles,
            self.jails,
            self.unpausing,
            self.readying,
            report,
        )

    def _add_runtime(self, settings: Settings, found: Mapping[HypervisorName, Hypervisor | str]) -> None:
        policy = Policy(
            fault_around_pages=settings.fault_around_pages,
            record_seconds=settings.record_seconds,
            record_quiet_seconds=settings.record_quiet_seconds,
        )
        self.huge_pages = HugePagePool()
        self.layers = Layers(self.inventory, settings.max_layers, self._report)
        losses = LogLosses(self.inventory, self._report)
        self.consoles = Consoles(self.inventory.layout, settings.console_log_size, self._report, losses.tell)
        # One for both: what was given and is in no record yet is given to nobody else.
        uids = Uids(settings.jail_uid_range, settings.data_dir, (), self._recorded_uids)
        users = page_server_users(settings.jail, settings.jail_uid_range, uids.free)
        self.page_servers = PageServers(self.inventory, policy, self.consoles, self._report, users)
        self.templates = Templates(self.inventory, self.page_servers)
        self.jails = Jails(self.inventory, settings, uids, found["firecracker"])
        self.vmms = Vmms(
            found,
            self.page_servers,
            self.huge_pages,
            self.consoles,
            self.inventory.layout,
            self.jails,
            self._on_exit,
            self._on_paused,
        )
        self.console_inputs = ConsoleInputs(self.inventory.layout, self.vmms)
        self.probes = ReadinessProbes(self.inventory.layout)
        self.run_files = RunFiles(self.inventory, self.vmms, self.page_servers, self.consoles)

    def _add_operations(
        self, default_hypervisor: HypervisorName, found: Mapping[HypervisorName, Hypervisor | str]
    ) -> None:
        inventory, vmms, layers = self.inventory, self.vmms, self.layers
        self.in_progress = InProgress(inventory.publisher, lambda *ended: self.metrics.ended(*ended))
        self.holding = Holding(inventory, self.in_progress, vmms.kill)
        self.readying = Readying(inventory, self.holding, vmms, self.probes, self._report)
        self.transitions = Transitions(inventory, vmms, layers, self.page_servers, self.readying, self._report)
        self.snapshots = Snapshots(inventory, self.transitions, vmms, layers)
        self.unpausing = Unpausing(self.holding, vmms, self._report)
        image_users = ImageUsers(inventory)
        self.images = Images(inventory.layout, self.in_progress, image_users, self.image_threads, found)
        self.creation = Creation(
            inventory.layout,
            self.holding,
            self.transitions,
            vmms,
            layers,
            self.catalog,
            self.image_threads,
            image_users,
            default_hypervisor,
        )
        self.instances = Instances(
            inventory,
            self.holding,
            self.transitions,
            self.snapshots,
            vmms,
            self.templates,
            self.page_servers,
            self._report,
        )
        self.acceptance = Acceptance(inventory, self.holding, vmms, self.templates, self.page_servers)
        self.forks = Forks(
            inventory,
            self.holding,
            self.transitions,
            self.snapshots,
            vmms,
            layers,
            self.templates,
            self.probes,
            self._report,
        )

    def _add_bulk_operations(self, events: EventBus) -> None:
        private_bytes = self.telemetry.private_bytes
        self.admission = Admission(self.inventory, self.huge_pages, private_bytes)
        self.fan_out = FanOut(
            self.inventory,
            self.in_progress,
            self.holding,
            self.forks,
            self.instances,
            self.admission,
            self._report,
            events.publish,
        )
        self.deletions = Deletions(
            self.inventory,
            self.in_progress,
            self.holding,
            self.templates,
            self.instances,
            private_bytes,
            self._report,
        )

    def _recorded_uids(self) -> set[int]:
        uids = {record.jail_uid for record in self.inventory.instances.values()}
        uids |= {template.page_server_uid for template in self.inventory.templates.values()}
        return {uid for uid in uids if uid is not None}

    def _on_exit(self, instance_id: str, exit_status: Exit) -> None:
        self.background.spawn(self.instances.on_exit(instance_id, exit_status))

    def _on_paused(self, instance_id: str) -> None:
        self.unpausing.begin(instance_id)
