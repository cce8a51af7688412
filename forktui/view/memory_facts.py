"""What there is to say of an instance's memory: where it comes from, what of it is there, how it is served. Pure."""

from forktui.model.totals import Totals
from forktui.text.quantities import count, milliseconds, percentage, plural, size
from forktui.view.glyphs import Glyphs
from forktui.view.latency import summary
from forktui.view.panels import Fact
from forktui.view.styled_lines import Ink, Line, Piece, joined
from forktui.view.subject import Subject
from supervisor.models import InstanceStatistics, LayerInfo, Template


def memory_facts(subject: Subject) -> list[Fact]:
    """How much memory there is, where it comes from, and how much of it is whose."""
    instance, counters, separator = subject.instance, subject.counters, _separator(subject)
    facts = [Fact("memory", _origin(subject))]
    if instance.vmm_pid is not None:
        private: Line = [(f"{size(counters.private_bytes)} private", "plain")]
        shared: Line = [(f"{size(counters.shared_bytes)} shared", "plain")]
        facts.append(Fact("resident", joined([private, shared], separator)))
        if counters.total_pages:
            facts.append(Fact("present", _present(counters, separator)))
    if subject.family.below:
        facts.append(Fact("family", _family(subject.family.sums)))
    return facts


def fault_facts(subject: Subject) -> list[Fact]:
    """The faults that a page server answered."""
    if not _is_served(subject):
        return []
    counters = subject.counters
    residual: Ink = "faulted" if counters.residual_faults else "running"
    faults: list[Line] = [[(f"{count(counters.faults)} demand", "faulted")]]
    faults += [[(f"{count(counters.fault_around_pages)} around", "around")]]
    faults += [[(f"{count(counters.residual_faults)} residual", residual)]] if counters.prefetched_pages else []
    return [Fact("faults", joined(faults, _separator(subject)))]


def latency_facts(subject: Subject) -> list[Fact]:
    """How long those faults waited, where that was asked for."""
    waited = summary(subject.fold, subject.glyphs) if subject.fold is not None and _is_served(subject) else []
    return [Fact("latency", waited)] if waited else []


def prefetch_facts(subject: Subject) -> list[Fact]:
    """What was prefetched for a fork, and what the template has recorded that it or its own forks read."""
    facts: list[Fact] = []
    if _is_served(subject) and subject.counters.prefetched_pages:
        facts.append(Fact("prefetch", _prefetched(subject.counters)))
    template = subject.own_template or subject.read_template
    if template is not None:
        facts.append(Fact("hot pages", hot_pages(template)))
        if template.precision is not None:
            facts.append(Fact("precision", _precision(template)))
    return facts


def template_facts(subject: Subject) -> list[Fact]:
    """The templates that an instance is or reads, each with its page server."""
    return [
        Fact(label, _template(template, subject.glyphs))
        for label, template in (("template", subject.own_template), ("reads", subject.read_template))
        if template is not None
    ]


def layer_facts(subject: Subject) -> list[Fact]:
    """The layers of the memory image: what each takes, and how many others have it too."""
    if subject.machine is None or not subject.machine.layers:
        known = plural(subject.instance.layers, "layer")
        return [Fact("layers", [(known, "plain")])] if subject.instance.layers else []
    layers = subject.machine.layers
    taken = sum(one.disk_bytes for one in layers)
    whole: Line = [(f"{plural(len(layers), 'layer')}, {size(taken)} on disk, newest first", "plain")]
    return [Fact("layers", whole), *(Fact(one.file, _layer(one)) for one in layers)]


def hot_pages(template: Template) -> Line:
    """What a template has recorded for the forks that come."""
    if template.recording_fork is not None:
        return [("being recorded by its first fork", "recording")]
    if not template.recorded_pages:
        return [("none recorded", "muted")]
    recorded = f"{plural(template.recorded_pages, 'page')} in {plural(template.recorded_runs, 'run')}"
    return [(recorded, "prefetched"), (f"  {size(template.recorded_pages * template.page_size)} recorded", "muted")]


def _separator(subject: Subject) -> Piece:
    return f" {subject.glyphs.dot} ", "guide"


def _is_served(subject: Subject) -> bool:
    return subject.instance.vmm_pid is not None and subject.instance.memory_backend == "uffd"


def _origin(subject: Subject) -> Line:
    instance = subject.instance
    parts: list[Line] = [[(size(instance.size_bytes), "plain")]]
    if instance.memory_backend is not None:
        whose = " of its source's template" if subject.read_template is not None else ""
        parts.append([(f"{instance.memory_backend}{whose}", "plain")])
    if instance.memory_backend == "uffd" and instance.prefetch is not None:
        parts.append([(f"prefetch {instance.prefetch.replace('_', ' ')}", "plain")])
    if instance.layers > 1:
        parts.append([(plural(instance.layers, "layer"), "plain")])
    return joined(parts, _separator(subject))


def _family(family: Totals) -> Line:
    line: Line = [(f"{family.instances} instances, {family.running} running", "plain")]
    if family.private_bytes or family.shared_bytes:
        line.append((f"  {size(family.private_bytes)} private, {size(family.shared_bytes)} shared", "muted"))
    return line


def _present(counters: InstanceStatistics, separator: Piece) -> Line:
    share = percentage(counters.present_pages, counters.total_pages)
    parts: list[Line] = [
        [(f"{count(counters.present_pages)} of {plural(counters.total_pages, 'page')}, {share}", "plain")]
    ]
    parts += [[(f"{count(counters.zero_pages)} zero", "zero")]] if counters.zero_pages else []
    parts += [[(f"{count(counters.removed_pages)} removed", "muted")]] if counters.removed_pages else []
    return joined(parts, separator)


def _prefetched(counters: InstanceStatistics) -> Line:
    line: Line = [(plural(counters.prefetched_pages, "page"), "prefetched")]
    line.append((f"  {size(counters.prefetch_bytes)} in {milliseconds(counters.prefetch_ms)}", "muted"))
    if counters.prefetch_ms:
        line.append((f", {size(round(counters.prefetch_bytes / counters.prefetch_ms * 1e3))}/s", "muted"))
    asked = counters.prefetched_pages + counters.residual_faults
    return [*line, (f"; {percentage(counters.residual_faults, asked)} of its pages it had to ask for", "muted")]


def _precision(template: Template) -> Line:
    line: Line = [(f"{template.precision or 0:.0%}", "plain")]
    line.append((f" of {plural(template.sampled_pages, 'hot page')} that were held back were asked for", "muted"))
    if template.wasted_bytes:
        line.append((f", {size(template.wasted_bytes)} wasted on each fork", "warning"))
    return line


def _template(template: Template, glyphs: Glyphs) -> Line:
    server = f"page server pid {template.page_server_pid}" if template.page_server_pid else "no page server"
    line: Line = [(template.id, "muted"), (f" {glyphs.dot} ", "guide"), (server, "plain")]
    if template.page_server_restarts:
        line.append((f", replaced {plural(template.page_server_restarts, 'time')}", "warning"))
    return [*line, (f" {glyphs.dot} ", "guide"), (f"{plural(template.fork_count, 'fork')} read it", "plain")]


def _layer(layer: LayerInfo) -> Line:
    own = "its own" if layer.names == 1 else f"{layer.names} names: others have it too"
    return [(f"{size(layer.disk_bytes)} of {size(layer.bytes)}", "plain"), (f"  {own}", "muted")]
