"""Acceptance of a memory image that was put back: read whole, and taken for what it is from then on."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from supervisor.concurrency.progress import advance, check, counted, interruptible
from supervisor.errors import InvalidStateError
from supervisor.images.machine_files import memory_sizes
from supervisor.models import AcceptRequest
from supervisor.operations.holding import Holding
from supervisor.remedies import Remedy
from supervisor.rules.lifecycle import Verb, named
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.examination import Examination, check_state
from supervisor.snapshots.layers import own_snapshot
from supervisor.store.inventory import Inventory
from supervisor.store.layer_marks import LayerMark, proofs
from supervisor.store.layout import HOT_PAGES
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.system.sparse_files import allocated

Marks = tuple[LayerMark, ...]

FORGOTTEN = {"recorded_pages": 0, "recorded_runs": 0, "sampled_pages": 0, "sampled_wanted": 0}
"""What a template's record says of a hot-page list that is gone."""


class Acceptance:
    """Reads the layers of a Standby instance, and of its template, and notes what they are.

    Only here is the content of a layer noted, since only here is it read: a digest at every promotion would have whole
    memories read from the disk that guests wait for, to tell no more than a write which set the mtime back.
    """

    def __init__(
        self, inventory: Inventory, holding: Holding, vmms: Vmms, templates: Templates, page_servers: PageServers
    ) -> None:
        self._inventory = inventory
        self._holding = holding
        self._vmms = vmms
        self._templates = templates
        self._page_servers = page_servers

    async def accept(self, reference: str, request: AcceptRequest) -> InstanceRecord:
        """Note what the layers of an instance's memory are; its VM and forks are checked against that from then on.

        LayerError for what cannot be read. InvalidStateError for another memory than what was noted, unless that is
        `changed`, and while a fork of it runs unless it is proven to be the same.
        """
        async with self._holding.hold(reference, Verb.ACCEPT) as record, contextlib.AsyncExitStack() as held:
            self._holding.check(Verb.ACCEPT, record)
            self._templates.check_forks_are_known(record)
            await self._vmms.check_loads(record)
            template = self._inventory.template_of(record.id)
            found, of_template = await self._examined(record, template)
            forks = self._forks(template)
            with interruptible():
                for fork in forks:
                    # None begins to run of a memory that is about to be another one.
                    await held.enter_async_context(self._holding.hold_quietly(fork.id))
            check()
            snapshot = own_snapshot(record)
            noted = template.layer_marks if template else ()
            proven = [*proofs(snapshot.layer_marks, found), *proofs(noted, of_template)]
            running = [one.name for one in self._forks(template) if one.process is not None]
            _check(record.name, running, proven, changed=request.changed)
            if template is not None:
                await self._accept_template(template, of_template, stop=not running, changed=False in proven)
            if False in proven:
                _forget(self._inventory.layout.instance(record.id) / HOT_PAGES)
            marked = snapshot.model_copy(update={"layer_marks": found})
            return await self._inventory.save(record.model_copy(update={"snapshot": marked}))

    def _forks(self, template: TemplateRecord | None) -> list[InstanceRecord]:
        instances = self._inventory.instances.values()
        return [one for one in instances if template is not None and one.template_id == template.id]

    async def _examined(self, record: InstanceRecord, template: TemplateRecord | None) -> tuple[Marks, Marks]:
        """Return what the layers of an instance and of its template are."""
        layout = self._inventory.layout
        directory = layout.instance(record.id)

        def read() -> tuple[Marks, Marks]:
            check_state(directory, record)
            examine = Examination(record.name, memory_sizes(directory, record.size_bytes), advance)
            own = [directory / name for name in own_snapshot(record).layers]
            of_template = [layout.data_dir / name for name in (template.layers if template else ())]
            with counted(_bytes_of([*own, *of_template]), "bytes"):
                return tuple(map(examine, own)), tuple(map(examine, of_template))

        return await asyncio.to_thread(read)

    async def _accept_template(self, template: TemplateRecord, found: Marks, *, stop: bool, changed: bool) -> None:
        changes: dict[str, object] = {"layer_marks": found}
        if stop:
            # It has the files open that were there before.
            await self._page_servers.stop(template.id)
            changes["page_server"] = None
        if changed:
            _forget(self._inventory.layout.hot_pages(template.id))
            _forget(self._inventory.layout.earlier_hot_pages(template.id))
            changes |= FORGOTTEN
        await self._inventory.update_template(template.id, **changes)


def _bytes_of(layers: Sequence[Path]) -> int:
    """Return how many bytes there are to read; what is missing is told by who reads it."""
    files: dict[tuple[int, int], int] = {}
    for layer in layers:
        with contextlib.suppress(OSError):
            status = layer.lstat()
            files[status.st_dev, status.st_ino] = allocated(status)
    return sum(files.values())


def _check(name: str, running: Sequence[str], proven: Sequence[bool | None], *, changed: bool) -> None:
    """Raise InvalidStateError for a memory that is not to be taken, by what is proven of its layers."""
    if running and not all(proven):
        raise InvalidStateError(
            f"{name}: accept refused: its memory is not known to be what it was, and forks of it run "
            f"({named(running)}); put them to standby, stop or delete them first"
        )
    if False in proven and not changed:
        raise InvalidStateError(
            f"{name}: accept refused: its memory is another one than what was noted; put that back",
            remedy=Remedy.ACCEPT_CHANGED,
        )


def _forget(hot_pages: Path) -> None:
    """Remove a hot-page list of another memory; one that stays costs a prefetch of the wrong pages."""
    with contextlib.suppress(OSError):
        hot_pages.unlink()
