"""What is said of one instance: in short beside the tree, the most urgent first, and in full on a screen. Pure."""

from forktui.text.quantities import milliseconds, plural
from forktui.view.columns import STATE_INKS
from forktui.view.fault_rates import rate_facts
from forktui.view.glyphs import Glyphs
from forktui.view.hygiene import hygiene, notice
from forktui.view.latency import histogram
from forktui.view.lock_facts import fork_facts, listing, source_facts
from forktui.view.machine_facts import (
    end_facts,
    guest_facts,
    issue_facts,
    jail_facts,
    last_words_facts,
    machine_fact,
    metadata_facts,
    origin_facts,
    process_facts,
    ready_facts,
    source_line,
    under_way_facts,
    version_facts,
)
from forktui.view.memory_facts import (
    fault_facts,
    latency_facts,
    layer_facts,
    memory_facts,
    prefetch_facts,
    template_facts,
)
from forktui.view.page_heat import has_page_map, heat_lines, heat_title, legend, no_page_map
from forktui.view.panels import Fact, Section
from forktui.view.styled_lines import Line
from forktui.view.subject import Subject
from forktui.view.waterfall import waterfall
from supervisor.models import Instance


def title(subject: Subject) -> Line:
    """Its name, its state and what is special about it."""
    instance, glyphs = subject.instance, subject.glyphs
    line: Line = [
        (instance.name, "strong"),
        ("  ", "plain"),
        *_state(instance, glyphs),
    ]
    if instance.mem_locked:
        line += [("  ", "plain"), (f" {glyphs.lock} LOCKED {instance.fork_count} ", "locked")]
    if instance.recording:
        line += [("  ", "plain"), (f" {glyphs.record} REC ", "recording")]
    if instance.busy:
        line += [("  ", "plain"), (f"{glyphs.working} {instance.busy}", "waiting")]
    return [*line, (f"  {instance.id}", "muted")]


def _state(instance: Instance, glyphs: Glyphs) -> Line:
    state = f"{glyphs.states[instance.state]} {instance.state}"
    if not instance.died:
        return [(state, STATE_INKS[instance.state])]
    return [(f"{glyphs.died} died", "broken"), (f"  {state}", STATE_INKS[instance.state])]


def overview(subject: Subject) -> list[Fact]:
    """The facts beside the tree, the most urgent first; what does not apply to the instance is left out."""
    return [
        Fact("", title(subject)),
        *under_way_facts(subject),
        *alarms(subject),
        *end_facts(subject),
        *last_words_facts(subject),
        *ready_facts(subject),
        *source_facts(subject),
        Fact("source", source_line(subject)),
        *fork_facts(subject),
        *memory_facts(subject),
        *fault_facts(subject),
        *latency_facts(subject),
        *unserved_facts(subject),
        *prefetch_facts(subject),
        machine_fact(subject),
        *guest_facts(subject),
        *notice(subject),
        *version_facts(subject),
        *issue_facts(subject),
    ]


def unserved_facts(subject: Subject) -> list[Fact]:
    """Of an instance without a page map: why that is so, and the faults of those below it."""
    if has_page_map(subject.instance):
        return []
    return [*rate_facts(subject), Fact("page map", [(no_page_map(subject.instance), "muted")])]


def start(subject: Subject, width: int) -> list[Line]:
    """How long its start took, and each step of that."""
    phases = subject.instance.phases
    bars = waterfall(phases, width, subject.glyphs)
    whole = milliseconds(sum(phase.milliseconds for phase in phases))
    return [[("start", "title"), ("  ", "plain"), (whole, "plain")], *bars] if bars else []


def in_full(subject: Subject, width: int) -> list[Section]:
    """All that is known of it, by what it is about."""
    return [
        Section(
            "",
            (
                *under_way_facts(subject),
                *alarms(subject),
                *end_facts(subject),
                *last_words_facts(subject),
                *ready_facts(subject),
            ),
        ),
        Section("Lock", _lock(subject)),
        Section("Origin", (Fact("source", source_line(subject)), *origin_facts(subject))),
        Section("Memory", (*memory_facts(subject), *layer_facts(subject))),
        Section("Page faults", _faults(subject, width)),
        Section("Prefetch", (*prefetch_facts(subject), *template_facts(subject))),
        Section(
            "Processes",
            (machine_fact(subject), *jail_facts(subject), *process_facts(subject), *guest_facts(subject)),
        ),
        Section("Clone hygiene", tuple(hygiene(subject))),
        Section("Metadata", tuple(metadata_facts(subject))),
        Section("Firecracker", (*version_facts(subject), *issue_facts(subject, shown=99))),
        Section("Start", _start(subject, width)),
        Section("Page map", _page_map(subject, width)),
    ]


def alarms(subject: Subject) -> list[Fact]:
    """What needs somebody at once."""
    instance, counters = subject.instance, subject.counters
    found: list[Fact] = []
    if counters.guest is not None and counters.guest.corrupt is not None:
        found.append(Fact("", [(" CORRUPT ", "alarm"), (f" {counters.guest.corrupt}", "broken")]))
    waits = f"a page fault has waited {milliseconds(counters.oldest_fault_ms)} for its answer"
    if counters.stalled == "stuck":
        found.append(Fact("", [(" STUCK ", "alarm"), (f" {waits}", "broken")]))
    elif counters.stalled == "slow":
        found.append(Fact("slow", [(f"{waits}; its page server works, or waits for the disk or the CPU", "warning")]))
    if counters.copy_errors:
        failed = f"{plural(counters.copy_errors, 'page')} could not be copied"
        found.append(Fact("errors", [(failed, "broken")]))
    if instance.state_error:
        found.append(Fact("error", [(instance.state_error, "broken")]))
    return found


def _lock(subject: Subject) -> tuple[Fact, ...]:
    facts = (*source_facts(subject, named=0), *fork_facts(subject))
    return (*facts, *listing(subject))


def _faults(subject: Subject, width: int) -> tuple[Fact, ...]:
    facts = (*fault_facts(subject), *rate_facts(subject), *latency_facts(subject))
    bars = histogram(subject.fold, width, subject.glyphs) if subject.fold is not None else []
    return (*facts, Fact("", [], tuple(bars))) if bars else facts


def _start(subject: Subject, width: int) -> tuple[Fact, ...]:
    lines = start(subject, width)
    whole: Line = [*lines[0][2:], ("  of its own steps, without what it waited for its turn", "muted")] if lines else []
    return (Fact("in all", whole, tuple(lines[1:])),) if lines else ()


def _page_map(subject: Subject, width: int) -> tuple[Fact, ...]:
    fold = subject.fold
    if fold is None:
        return (Fact("", [(no_page_map(subject.instance), "muted")]),)
    lines = [*heat_lines(fold, width, subject.glyphs), legend(fold, width, subject.glyphs)]
    return (Fact("", heat_title(fold, width)[1:], tuple(lines)),)
