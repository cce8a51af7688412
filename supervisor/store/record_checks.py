"""What a well-formed record may say, by itself and beside the others. Pure: values in, reasons out.

A reason says in one line why nothing is to be done by a record: whoever goes by it would end processes, remove files or
walk without end. What an earlier version of this supervisor wrote has none.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Final, get_args

from supervisor.models import State, is_id
from supervisor.models.base import ID_LENGTH, MAX_VCPUS
from supervisor.models.metadata import checked
from supervisor.models.readiness import LONGEST_READINESS, parse_readiness
from supervisor.models.validation import quoted
from supervisor.rules.lifecycle import HAS_VMM
from supervisor.rules.lineage import in_circles
from supervisor.store.layer_marks import LayerMark
from supervisor.store.layout import MEM, STATE
from supervisor.store.records import InstanceRecord, ProcessIdentity, SnapshotFiles, TemplateRecord
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, SMALL_PAGE_BYTES
from supervisor.vmm.configuration import Device

MOST_MEMORY: Final = 1 << 47
"""Bytes: a VMM maps all guest memory in its own address space (Documentation/arch/x86/x86_64/mm.rst)."""
MOST_PID: Final = 1 << 22
"""PID_MAX_LIMIT in the kernel's include/linux/threads.h."""
MOST_OFFSET: Final = (1 << 63) - 1
"""What a file offset, and a time of the kernel's, may be."""
MOST_LAYERS: Final = 1 << 31
LONGEST_TEXT: Final = 4096
TEMPLATE: Final = "template_id"
DEVICES: Final = frozenset(get_args(Device))
YEARS: Final = range(1970, 9999)
"""So that a time can be brought to any other zone."""

_VERSION: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}[0-9A-Za-z.+-]{0,40}\Z")
_NUMBERED: Final = re.compile(rf"(?:{STATE}|{MEM})\.(0|[1-9][0-9]{{0,9}})")


def instance_problem(record: InstanceRecord, directory: str) -> str | None:
    """Return what is wrong with an instance's record in the directory of this name."""
    return next(
        chain(
            _of_references(record, directory),
            _of_machine(record),
            _of_state(record),
            _of_snapshot(record.snapshot, record.next_layer) if record.snapshot else (),
            _of_process(record.process),
            _of_uid("jail_uid", record.jail_uid),
            _of_shown(record),
        ),
        None,
    )


def template_problem(record: TemplateRecord, directory: str) -> str | None:
    """Return what is wrong with a template's record in the directory of this name."""
    return next(
        chain(
            _of_id("id", record.id, directory),
            _of_id("instance_id", record.instance_id),
            _of_memory(record.size_bytes, record.page_size),
            _of_template_layers(record),
            _of_process(record.page_server),
            _of_uid("page_server_uid", record.page_server_uid),
            _of_counters(record),
        ),
        None,
    )


def instance_conflicts(records: Sequence[InstanceRecord]) -> dict[str, str]:
    """Return which of these instances cannot be beside the others, by their ids, and why.

    All members of a circle of sources. Of several that have one name, or one process, all but the oldest: none gets
    what another has already.
    """
    members = {record.id: record.source_id for record in records}
    found = {
        instance_id: f"source_id: {members[instance_id]} descends from it, in a circle of sources"
        for instance_id in in_circles(members)
    }
    owners: dict[str | ProcessIdentity, str] = {}
    for record in sorted(records, key=lambda record: (record.number, record.created_at, record.id)):
        if record.id in found:
            continue
        own = [key for key in (record.name, record.process) if key is not None]
        taken = next((key for key in own if key in owners), None)
        if taken is None:
            owners.update(dict.fromkeys(own, record.id))
        else:
            what = f"name: {taken}" if isinstance(taken, str) else f"process: pid {taken.pid}"
            found[record.id] = f"{what} is instance {owners[taken]}'s"
    return found


def template_conflicts(templates: Sequence[TemplateRecord], instances: Mapping[str, InstanceRecord]) -> dict[str, str]:
    """Return which of these templates cannot be beside the others and those instances, by their ids, and why.

    Of several of one instance that one stays which most of its forks read.
    """
    readers = [record.template_id for record in instances.values()]
    found: dict[str, str] = {}
    kept: dict[str, str] = {}
    for template in sorted(templates, key=lambda template: (-readers.count(template.id), template.id)):
        source = instances.get(template.instance_id)
        if source is not None and (problem := _not_of(template, source)):
            found[template.id] = problem
        elif (other := kept.setdefault(template.instance_id, template.id)) != template.id:
            found[template.id] = f"instance_id: {template.instance_id} has template {other} already"
    return found


def fork_conflicts(records: Iterable[InstanceRecord], templates: Mapping[str, TemplateRecord]) -> dict[str, str]:
    """Return which of these instances are no forks of the template that they name, by their ids, and why."""
    found: dict[str, str] = {}
    for record in records:
        template = templates.get(record.template_id or "")
        if template is None:
            continue
        if template.instance_id != record.source_id:
            found[record.id] = f"{TEMPLATE}: {template.id} is of instance {template.instance_id}, not of its source"
        elif _machine(record) != _machine(template):
            found[record.id] = f"{TEMPLATE}: {template.id} has memory of another size, page size or hypervisor"
    return found


def _not_of(template: TemplateRecord, source: InstanceRecord) -> str | None:
    if source.state is not State.STANDBY:
        return f"instance_id: {source.id} is {source.state}, and a template is a Standby instance's"
    if _machine(template) != _machine(source):
        return f"instance_id: {source.id} has memory of another size, page size or hypervisor"
    return None


def _machine(record: InstanceRecord | TemplateRecord) -> tuple[int, int, str]:
    return record.size_bytes, record.page_size, record.hypervisor


def _of_id(field: str, value: str, directory: str | None = None) -> Iterator[str]:
    if directory is not None and value != directory:
        yield f"{field}: {quoted(value)} is not the name of its directory"
    if not is_id(value):
        yield f"{field}: {quoted(value)} is no id: {ID_LENGTH} lowercase letters and digits, a letter first"


def _of_references(record: InstanceRecord, directory: str) -> Iterator[str]:
    yield from _of_id("id", record.id, directory)
    for field, value in (("source_id", record.source_id), (TEMPLATE, record.template_id)):
        if value is not None:
            yield from _of_id(field, value)
    if record.source_id == record.id:
        yield "source_id: it is its own source"
    if (record.source_id is None) is not (record.fork_kind is None):
        yield "source_id: a fork has one and a fork_kind, and what is no fork has neither"
    if record.template_id is not None and record.fork_kind != "share_memory":
        yield f"{TEMPLATE}: only a share_memory fork has one"
    if record.let_go is not None and record.fork_kind != "copy":
        yield "let_go: who holds no lock any more is a copy"
    if record.attached and record.template_id is None:
        yield "attached: it has no template to be attached to"


def _of_memory(size_bytes: int, page_size: int) -> Iterator[str]:
    if page_size not in (SMALL_PAGE_BYTES, HUGE_PAGE_BYTES):
        yield f"page_size: {page_size} is neither {SMALL_PAGE_BYTES} nor {HUGE_PAGE_BYTES}"
    elif not 0 < size_bytes <= MOST_MEMORY or size_bytes % page_size:
        yield f"size_bytes: {size_bytes} is no number of pages of {page_size} bytes up to {MOST_MEMORY} bytes"


def _of_machine(record: InstanceRecord) -> Iterator[str]:
    yield from _of_memory(record.size_bytes, record.page_size)
    yield from _in_range("vcpus", record.vcpus, 1, MAX_VCPUS)
    yield from _in_range("number", record.number, 0, MOST_OFFSET)
    yield from _in_range("next_layer", record.next_layer, 0, MOST_LAYERS)
    yield from _in_range("console_offset", record.console_offset, 0, MOST_OFFSET)


def _of_state(record: InstanceRecord) -> Iterator[str]:
    """Yield what no transition writes, in the middle of one either.

    A Standby instance may have a process: the snapshot is its own before its VMM is ended.
    """
    if record.state is State.UNKNOWN:
        yield "state: Unknown is no state of a record, but of one that is set aside"
    if record.state in HAS_VMM and record.process is None:
        yield f"process: it is missing, and a VM that is {record.state} has one"
    if record.process is not None and record.state not in HAS_VMM | {State.STANDBY}:
        yield f"process: one that is {record.state} has none"
    if record.state is State.STANDBY and record.snapshot is None:
        yield "snapshot: it is missing, and a Standby instance has one"
    if record.attached and record.state not in HAS_VMM | {State.STANDBY}:
        yield f"attached: one that is {record.state} has no memory"


def _of_snapshot(snapshot: SnapshotFiles, next_layer: int) -> Iterator[str]:
    yield from _of_names("snapshot.state", (snapshot.state,), STATE)
    yield from _of_names("snapshot.layers", snapshot.layers, MEM)
    yield from _of_marks(snapshot.layer_marks, snapshot.layers)
    for name in (snapshot.state, *snapshot.layers):
        # The next snapshot clears its names before it is written.
        if (numbered := _NUMBERED.fullmatch(name)) and int(numbered[1]) >= next_layer:
            yield f"next_layer: {next_layer} is not above the number of {name}"


def _of_names(field: str, names: Collection[str], stem: str) -> Iterator[str]:
    if not names:
        yield f"{field}: it is empty"
    for name in names:
        if not name.startswith(f"{stem}.") or _NUMBERED.fullmatch(name) is None:
            yield f"{field}: {quoted(name)} is not {stem}. and a number"
    if len(set(names)) < len(names):
        yield f"{field}: a name is there twice"


def _of_template_layers(record: TemplateRecord) -> Iterator[str]:
    own = f"templates/{record.id}/"
    # The first templates had no links of their own.
    former = f"instances/{record.instance_id}/"
    prefix = former if any(path.startswith(former) for path in record.layers) else own
    for path in record.layers:
        if not path.startswith(prefix):
            yield f"layers: {quoted(path)} is not in {own}"
    yield from _of_names("layers", [path.removeprefix(prefix) for path in record.layers], MEM)
    yield from _of_marks(record.layer_marks, record.layers)


def _of_marks(marks: Sequence[LayerMark], layers: Sequence[str]) -> Iterator[str]:
    if marks and len(marks) != len(layers):
        yield f"layer_marks: {len(marks)} are of {len(layers)} layers"
    for mark in marks:
        yield from _in_range("layer_marks.size", mark.size, 0, MOST_OFFSET)
        yield from _in_range("layer_marks.mtime_ns", mark.mtime_ns, -MOST_OFFSET, MOST_OFFSET)


def _of_process(process: ProcessIdentity | None) -> Iterator[str]:
    if process is not None:
        # The first process of a host, or of a container, is nobody's VMM.
        yield from _in_range("process.pid", process.pid, 2, MOST_PID)
        yield from _in_range("process.start_time", process.start_time, 0, MOST_OFFSET)


def _of_uid(field: str, uid: int | None) -> Iterator[str]:
    if uid is not None:
        # Those below are users of the host, and the last two are nobody's: chown(2).
        yield from _in_range(field, uid, 1000, (1 << 32) - 3)


def _of_counters(record: TemplateRecord) -> Iterator[str]:
    pages = record.image_bytes // record.page_size
    yield from _in_range("recorded_pages", record.recorded_pages, 0, pages)
    yield from _in_range("recorded_runs", record.recorded_runs, 0, pages)
    yield from _in_range("sampled_pages", record.sampled_pages, 0, MOST_OFFSET)
    yield from _in_range("sampled_wanted", record.sampled_wanted, 0, record.sampled_pages)
    yield from _in_range("page_server_restarts", record.page_server_restarts, 0, MOST_OFFSET)


def _of_shown(record: InstanceRecord) -> Iterator[str]:
    """Yield what could not be told to a client: it would take the whole list with it."""
    yield from _of_guest(record)
    for field in ("created_at", "started_at", "stopped_at", "ready_at"):
        at: datetime | None = getattr(record, field)
        if at is not None and (at.tzinfo is None or at.year not in YEARS):
            yield f"{field}: {at.isoformat()} is no time with a zone of the years {YEARS[0]} to {YEARS[-1]}"
    if record.exit_code is not None:
        yield from _in_range("exit_code", record.exit_code, -(1 << 31), (1 << 32) - 1)
    for phase in record.phases:
        if not math.isfinite(phase.milliseconds) or phase.milliseconds < 0 or len(phase.name) > LONGEST_TEXT:
            yield f"phases: {phase.milliseconds} ms is no duration, or its name is too long"
    for field in ("image", "exit_message", "firecracker_version", "source_name"):
        if len(getattr(record, field) or "") > LONGEST_TEXT:
            yield f"{field}: it is longer than {LONGEST_TEXT} characters"
    versions = (record.vmm_snapshot_version, record.snapshot.snapshot_version if record.snapshot else None)
    yield from (f"snapshot version: {quoted(one)} is none" for one in versions if one and not _VERSION.match(one))
    if not DEVICES.issuperset(record.devices or ()):
        told = quoted(", ".join(record.devices or ()))
        yield f"devices: {told} are not devices that matter: {', '.join(sorted(DEVICES))}"


def _of_guest(record: InstanceRecord) -> Iterator[str]:
    for field in ("ready_on_boot", "ready_on_load", "readiness"):
        text = getattr(record, field)
        try:
            if text is not None and len(text) > LONGEST_READINESS:
                yield f"{field}: it is longer than {LONGEST_READINESS} characters"
            elif text is not None:
                parse_readiness(text)
        except ValueError as error:
            yield f"{field}: {quoted(text)}: {error}"
    try:
        checked(record.metadata or {})
    except ValueError as error:
        yield f"metadata: {error}"
    for field in ("ready_ms", "runs_since"):
        number = getattr(record, field)
        if number is not None and not 0 <= number < MOST_OFFSET:
            yield f"{field}: {number} is no duration"


def _in_range(field: str, value: int, least: int, most: int) -> Iterator[str]:
    if not least <= value <= most:
        yield f"{field}: {quoted(value)} is not in the range of {least} to {most}"
