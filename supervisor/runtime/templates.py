"""Templates: Standby instances promoted so that share_memory forks may read their memory."""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from supervisor.concurrency.progress import step
from supervisor.errors import InvalidStateError
from supervisor.runtime.page_servers import PageServers
from supervisor.snapshots.layer_checks import take_marks
from supervisor.snapshots.layer_files import link
from supervisor.snapshots.layers import own_snapshot
from supervisor.store.inventory import Inventory
from supervisor.store.layout import HOT_PAGES, RECORDED
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.store.registry import new_id
from supervisor.system.regular_files import open_regular


class Templates:
    """Promotion and un-promotion; the caller of either holds the instance."""

    def __init__(self, inventory: Inventory, page_servers: PageServers) -> None:
        self._inventory = inventory
        self._page_servers = page_servers

    async def promote(self, source: InstanceRecord) -> TemplateRecord:
        """Return the template of a Standby instance, made now if there is none."""
        existing = self._inventory.template_of(source.id)
        if existing is not None:
            return existing
        self._check_none_is_set_aside(source)
        step("promote")
        snapshot = own_snapshot(source)
        template_id = new_id()
        layout = self._inventory.layout
        directory = layout.template(template_id).relative_to(layout.data_dir)
        source_directory = layout.instance(source.id)
        layers = [source_directory / layer for layer in snapshot.layers]
        return await self._inventory.add_template(
            TemplateRecord(
                id=template_id,
                instance_id=source.id,
                layers=tuple(str(directory / layer) for layer in snapshot.layers),
                layer_marks=snapshot.layer_marks or await asyncio.to_thread(take_marks, source.name, layers),
                size_bytes=source.size_bytes,
                page_size=source.page_size,
                hypervisor=source.hypervisor,
                snapshot_version=snapshot.snapshot_version,
            ),
            partial(_populate, snapshot.layers, source_directory),
        )

    async def unpromote(self, instance_id: str) -> None:
        """Undo the promotion, if there was one, of an instance that no fork holds any more."""
        self.check_forks_are_known(self._inventory.instances[instance_id])
        template = self._inventory.template_of(instance_id)
        if template is not None:
            step("unpromote")
            await self._page_servers.stop(template.id)
            await self._inventory.remove_template(template.id)

    def check_forks_are_known(self, source: InstanceRecord) -> None:
        """Raise InvalidStateError where a record that is set aside may be of a fork that reads its memory."""
        self._check_none_is_set_aside(source)
        if self._inventory.unreadable and self._inventory.template_of(source.id) is not None:
            named = ", ".join(self._inventory.unreadable)
            raise InvalidStateError(
                f"the template of {source.name} stays: a record that cannot be read may be a fork of it ({named}); "
                "repair or remove that directory, and start the supervisor again"
            )

    def _check_none_is_set_aside(self, source: InstanceRecord) -> None:
        """Raise InvalidStateError where the instance's template is one that nobody may go by: forks may read it."""
        forks = self._inventory.instances.values()
        of_its_forks = {fork.template_id for fork in forks if fork.source_id == source.id}
        for template_id, aside in self._inventory.unreadable_templates.items():
            # Of a record that is torn only its forks may know whose it is.
            if aside.instance_id == source.id or template_id in of_its_forks:
                raise InvalidStateError(
                    f"{source.name}: refused: the record of its template is set aside: {aside.reason}; repair or "
                    f"remove template {template_id}, and start the supervisor again"
                )


def _populate(layers: Sequence[str], source: Path, template: Path) -> None:
    """Put into a template's directory what its page server reads, and the directory that it works in.

    That is the layers, and the hot-page list of its image.
    """
    link(layers, source, template)
    # Now: a page server that is replaced is not to need a disk that may be full by then.
    (template / RECORDED).mkdir(mode=0o700)
    (template / RECORDED).chmod(0o700)
    # Without a list one is recorded: what cannot be one is no reason to make no forks.
    with contextlib.suppress(OSError):
        os.close(open_regular(source / HOT_PAGES))
        link((HOT_PAGES,), source, template)
