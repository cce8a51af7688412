"""What is said of one instance: its facts, and how long each step of its start took. Pure."""

from collections.abc import Sequence

from forktui.model.conditions import is_stuck
from forktui.model.family import Family, family_of
from forktui.model.totals import Totals
from forktui.model.world import World
from forktui.text.quantities import count, deleted, milliseconds, names, percentage, plural, progress, size
from forktui.view.columns import STATE_INKS
from forktui.view.glyphs import Glyphs
from forktui.view.styled_lines import Ink, Line, Piece, joined, left, right
from supervisor.models import Instance, InstanceStatistics, Phase, Template

LABEL_WIDTH = 10


def facts(world: World, instance: Instance, glyphs: Glyphs, family: Family | None = None) -> list[Line]:
    """One line a fact, the most urgent first; what does not apply to the instance is left out.

    `family` is the instance's, where it is known already.
    """
    counters = world.statistics_of(instance.id)
    template = world.template_of(instance)
    lines = [_title(instance, glyphs), _under_way(instance), *_alarms(instance, counters)]
    lines += [_fact("source", _source(world, instance))]
    lines += _as_source(instance, template, family or family_of(world, instance.id))
    lines += [_fact("machine", _machine(instance, glyphs)), _fact("memory", _memory(instance, glyphs))]
    lines += [_fact("version", _version(instance, glyphs)), _fact("issues", _issues(instance))]
    if instance.vmm_pid is not None:
        lines += _live(instance, counters, glyphs)
    return [line for line in lines if line]


def waterfall(phases: Sequence[Phase], width: int, glyphs: Glyphs) -> list[Line]:
    """The phases as bars, each beginning where the one before it ended."""
    whole = sum(phase.milliseconds for phase in phases)
    if not whole:
        return []
    room = max(width - LABEL_WIDTH - 9, 4)
    lines: list[Line] = []
    before = 0.0
    for phase in phases:
        begin = min(round(before / whole * room), room - 1)
        before += phase.milliseconds
        length = max(round(before / whole * room) - begin, 1)
        ink: Ink = "prefetched" if phase.name == "prefetch" else "standby"
        bar: Line = [(" " * begin, "plain"), (glyphs.full * length, ink), (" " * (room - begin - length), "plain")]
        duration = right(milliseconds(phase.milliseconds), 9, glyphs.ellipsis)
        lines.append([(left(phase.name, LABEL_WIDTH, glyphs.ellipsis), "muted"), *bar, (duration, "plain")])
    return lines


def _fact(label: str, value: Line) -> Line:
    return [(left(label, LABEL_WIDTH), "muted"), *value] if value else []


def _title(instance: Instance, glyphs: Glyphs) -> Line:
    line: Line = [
        (instance.name, "strong"),
        ("  ", "plain"),
        (f"{glyphs.states[instance.state]} {instance.state}", STATE_INKS[instance.state]),
    ]
    if instance.mem_locked:
        line += [("  ", "plain"), (f" {glyphs.lock} LOCKED {instance.fork_count} ", "locked")]
    if instance.recording:
        line += [("  ", "plain"), (f" {glyphs.record} REC ", "recording")]
    if instance.busy:
        line += [("  ", "plain"), (f"{glyphs.working} {instance.busy}", "waiting")]
    return [*line, (f"  {instance.id}", "muted")]


def _under_way(instance: Instance) -> Line:
    operation = instance.operation
    if operation is None or operation.since is None:
        return []
    since = f"  since {operation.since.astimezone():%H:%M:%S}, asked by {operation.asked_by}"
    counted = f", {progress(operation)}" if operation.total is not None else ""
    ending = ", being cancelled" if operation.cancelled else ""
    return _fact("under way", [(f"{operation.verb}: {operation.step}{counted}{ending}", "waiting"), (since, "muted")])


def _alarms(instance: Instance, counters: InstanceStatistics) -> list[Line]:
    found: list[Line] = []
    if counters.guest is not None and counters.guest.corrupt is not None:
        found.append([(" CORRUPT ", "alarm"), (f" {counters.guest.corrupt}", "broken")])
    if is_stuck(counters.oldest_fault_ms):
        waits = f" a page fault has waited {milliseconds(counters.oldest_fault_ms)} for its answer"
        found.append([(" STUCK ", "alarm"), (waits, "broken")])
    if counters.copy_errors:
        found.append(_fact("errors", [(f"{plural(counters.copy_errors, 'page')} could not be copied", "broken")]))
    if instance.state_error:
        found.append(_fact("error", [(instance.state_error, "broken")]))
    if instance.exit_message or instance.exit_code:
        # The message names the code of a VMM that has one.
        ended = "died" if instance.died else "exit"
        found.append(_fact(ended, [(instance.exit_message or f"code {instance.exit_code}", "warning")]))
    return found


def _source(world: World, instance: Instance) -> Line:
    if instance.source_id is None:
        return [(f"none: booted from image {instance.image}", "plain")]
    source = world.instances.get(instance.source_id)
    name: Piece = (source.name, "plain") if source else (deleted(instance.source_id), "muted")
    kinds = {None: "fork", "checkpoint": "checkpoint"}
    return [name, (f"  {kinds.get(instance.fork_kind, f'{instance.fork_kind} fork')}", "muted")]


def _as_source(instance: Instance, template: Template | None, family: Family) -> list[Line]:
    lines: list[Line] = []
    if instance.mem_locked:
        held_by = names(instance.locked_by, shown=3, total=instance.fork_count)
        lines.append(_fact("locked by", [(held_by, "plain"), ("  delete or detach to unlock", "muted")]))
    if template is not None:
        lines.append(_fact("hot pages", _hot_pages(template, instance)))
    if family.below:
        lines.append(_fact("family", _family(family.sums)))
    return lines


def _hot_pages(template: Template, instance: Instance) -> Line:
    if template.recording_fork is not None:
        return [("being recorded by its first fork", "recording")]
    if not template.recorded_pages:
        return [("none recorded", "muted")]
    recorded = f"{plural(template.recorded_pages, 'page')} in {plural(template.recorded_runs, 'run')}"
    worth = "" if template.precision is None else f", {template.precision:.0%} wanted"
    if template.wasted_bytes:
        worth += f", {size(template.wasted_bytes)} wasted"
    return [(recorded, "prefetched"), (f"  {size(template.recorded_pages * template.page_size)}{worth}", "muted")]


def _family(family: Totals) -> Line:
    line: Line = [(f"{family.instances} instances, {family.running} running", "plain")]
    if family.private_bytes or family.shared_bytes:
        line.append((f"  {size(family.private_bytes)} private, {size(family.shared_bytes)} shared", "muted"))
    return line


def _machine(instance: Instance, glyphs: Glyphs) -> Line:
    pid = f" pid {instance.vmm_pid}" if instance.vmm_pid is not None else ""
    words = (size(instance.size_bytes), f"{instance.vcpus} vCPU", f"{instance.hypervisor}{pid}")
    return joined(([(word, "plain")] for word in words), (f" {glyphs.dot} ", "guide"))


def _memory(instance: Instance, glyphs: Glyphs) -> Line:
    backend = instance.memory_backend
    parts: list[Line] = [[(backend, "plain")]] if backend else []
    if backend == "uffd" and instance.prefetch is not None:
        parts.append([(f"prefetch {instance.prefetch.replace('_', ' ')}", "plain")])
    if instance.layers > 1:
        parts.append([(plural(instance.layers, "layer"), "plain")])
    return joined(parts, (f" {glyphs.dot} ", "guide"))


def _version(instance: Instance, glyphs: Glyphs) -> Line:
    """The Firecracker that runs it, and for which of its faults the snapshots are whole."""
    if instance.firecracker_version is None:
        return []
    whole = [fault.name for fault in instance.known_faults if fault.action == "full"]
    parts: list[Line] = [[(instance.firecracker_version, "plain")]]
    parts += [[(f"whole snapshots: {', '.join(whole)}", "warning")]] if whole else []
    return joined(parts, (f" {glyphs.dot} ", "guide"))


def _issues(instance: Instance) -> Line:
    """What else that version does wrong; GET /capabilities says it in words."""
    known = [fault.name for fault in instance.known_faults if fault.action in ("warn", "refuse")]
    return [(f"{len(known)} known: {names(known, shown=3, total=len(known))}", "muted")] if known else []


def _live(instance: Instance, counters: InstanceStatistics, glyphs: Glyphs) -> list[Line]:
    separator: Piece = (f" {glyphs.dot} ", "guide")
    lines: list[Line] = []
    if instance.memory_backend == "uffd":
        residual: Ink = "faulted" if counters.residual_faults else "running"
        faults: list[Line] = [[(f"{count(counters.faults)} demand", "faulted")]]
        faults += [[(f"{count(counters.fault_around_pages)} around", "around")]]
        faults += [[(f"{count(counters.residual_faults)} residual", residual)]] if counters.prefetched_pages else []
        lines.append(_fact("faults", joined(faults, separator)))
        if counters.prefetched_pages:
            lines.append(_fact("prefetch", _prefetch(counters)))
        lines.append(_fact("present", _present(counters, separator)))
    private: Line = [(f"{size(counters.private_bytes)} private", "plain")]
    shared: Line = [(f"{size(counters.shared_bytes)} shared", "plain")]
    lines.append(_fact("resident", joined([private, shared], separator)))
    cpu: Line = [(f"cpu {counters.cpu_seconds:.1f} s", "plain")]
    lines.append(_fact("guest", joined([*_guest(counters), cpu], separator)))
    lines.append(_fact("hygiene", _hygiene(instance, counters)))
    return lines


def _prefetch(counters: InstanceStatistics) -> Line:
    fetched = plural(counters.prefetched_pages, "page")
    return [
        (fetched, "prefetched"),
        (f"  {size(counters.prefetch_bytes)} in {milliseconds(counters.prefetch_ms)}", "muted"),
    ]


def _present(counters: InstanceStatistics, separator: Piece) -> Line:
    share = percentage(counters.present_pages, counters.total_pages)
    parts: list[Line] = [
        [(f"{count(counters.present_pages)} of {plural(counters.total_pages, 'page')}, {share}", "plain")]
    ]
    parts += [[(f"{count(counters.zero_pages)} zero", "zero")]] if counters.zero_pages else []
    parts += [[(f"{count(counters.removed_pages)} removed", "muted")]] if counters.removed_pages else []
    return joined(parts, separator)


def _guest(counters: InstanceStatistics) -> list[Line]:
    guest = counters.guest
    if guest is None:
        return []
    verified: Ink = "running" if guest.passes and guest.corrupt is None else "plain"
    passes: list[Line] = [[(f"{count(guest.passes)} {'pass' if guest.passes == 1 else 'passes'} verified", verified)]]
    return [*passes, [("done", "muted")]] if guest.done else passes


def _hygiene(instance: Instance, counters: InstanceStatistics) -> Line:
    """Whether the guest knows that it is a clone; a guest that prints nothing about it cannot be asked."""
    if instance.memory_backend is None or counters.guest is None:
        return []
    if counters.guest.restored:
        return [("the guest saw its new VM generation id", "plain")]
    return [("the guest has not noticed its restore", "warning")]
