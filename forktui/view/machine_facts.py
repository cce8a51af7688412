"""What there is to say of an instance as a machine: where it comes from, what runs it, and how it ended. Pure."""

import json

from forktui.text.quantities import count, deleted, milliseconds, names, progress, size
from forktui.text.safe import safe_text
from forktui.view.columns import MAYBE
from forktui.view.panels import Fact
from forktui.view.styled_lines import Ink, Line, Piece, joined
from forktui.view.subject import Subject
from supervisor.models import Instance


def under_way_facts(subject: Subject) -> list[Fact]:
    """What is being done to it, by whom, and how far that is."""
    operation = subject.instance.operation
    if operation is None or operation.since is None:
        return []
    since = f"  since {operation.since.astimezone():%H:%M:%S}, asked by {operation.asked_by}"
    counted = f", {progress(operation)}" if operation.total is not None else ""
    ending = ", being cancelled" if operation.cancelled else ""
    return [Fact("under way", [(f"{operation.verb}: {operation.step}{counted}{ending}", "waiting"), (since, "muted")])]


def end_facts(subject: Subject) -> list[Fact]:
    """How its last VMM ended, and when; nothing where it has not, or nobody knows."""
    instance = subject.instance
    if not instance.exit_message and not instance.exit_code:
        return []
    # The message names the code of a VMM that has one.
    why = instance.exit_message or f"code {instance.exit_code}"
    when = f"  {subject.ago(instance.stopped_at)}" if instance.stopped_at is not None else ""
    return [Fact("died" if instance.died else "exit", [(why, "warning"), (when.rstrip(), "muted")])]


def last_words_facts(subject: Subject) -> list[Fact]:
    """What its console ends with, where that tells of an end and its VM goes on: the guest may print what it likes."""
    said = subject.counters.last_words
    if said is None or subject.instance.vmm_pid is None:
        return []
    halted: Line = [(f"its console says {said.line}", "warning"), ("; its VM goes on", "plain")]
    return [Fact(MAYBE[said.says], [*halted, ("; stop it if that is so", "muted")])]


def ready_facts(subject: Subject) -> list[Fact]:
    """Whether its guest is ready by what its start waits for, and how long that took; nothing where nobody waits."""
    instance = subject.instance
    if instance.readiness is None:
        return []
    if instance.ready_at is None:
        return [Fact("ready", [("not yet, waits for ", "waiting"), (instance.readiness, "plain")])]
    took = f"after {milliseconds(instance.ready_ms)}" if instance.ready_ms is not None else "yes"
    return [Fact("ready", [(took, "running"), (f"  {instance.readiness}", "muted")])]


def metadata_facts(subject: Subject) -> list[Fact]:
    """What its guest is told of itself, and by what; nothing where it is told nothing."""
    told, instance = subject.machine, subject.instance
    if told is None or not told.metadata_ways:
        return []
    ways = ", ".join({"mmds": "MMDS", "drive": "its disk metadata"}.get(way, way) for way in told.metadata_ways)
    lines: list[Line] = []
    for key, value in sorted((told.metadata or {}).items()):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append([(f"{key} ", "muted"), (safe_text(text), "plain")])
    who: Line = [(f"it is {instance.name}, number {instance.number}", "plain"), (f"  by {ways}", "muted")]
    return [Fact("told", who, tuple(lines))]


def source_line(subject: Subject) -> Line:
    """What it was made of, and how."""
    instance, source = subject.instance, subject.source
    if instance.source_id is None:
        return [(f"none: booted from image {instance.image}", "plain")]
    name: Piece = (source.name, "plain") if source else (deleted(instance.source_id), "muted")
    kinds = {None: "fork", "checkpoint": "checkpoint"}
    return [name, (f"  {kinds.get(instance.fork_kind, f'{instance.fork_kind} fork')}", "muted")]


def origin_facts(subject: Subject) -> list[Fact]:
    """When it was made, and of which image."""
    instance = subject.instance
    made = f"{instance.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    line: Line = [(made, "plain"), (f"  {subject.ago(instance.created_at)}", "muted")]
    image = [Fact("image", [(instance.image, "plain")])] if instance.source_id is not None and instance.image else []
    return [Fact("made", line), *image, *_begun(subject)]


def machine_fact(subject: Subject) -> Fact:
    """Its size and what runs it."""
    instance = subject.instance
    pid = f" pid {instance.vmm_pid}" if instance.vmm_pid is not None else ""
    jailed = ("jailed",) if instance.jail_uid is not None else ()
    return Fact("machine", _dotted(subject, f"{instance.vcpus} vCPU", f"{instance.hypervisor}{pid}", *jailed))


def jail_facts(subject: Subject) -> list[Fact]:
    """What its VMM may reach of the host: what is in its jail, or what the supervisor's user may."""
    instance = subject.instance
    if instance.vmm_pid is None or instance.hypervisor != "firecracker":
        return []
    if instance.jail_uid is not None:
        own: Line = [(f"uid {instance.jail_uid}", "running"), ("  a root, a user and a cgroup of its own", "muted")]
        return [Fact("jail", own)]
    jails = subject.world.supervisor.jails if subject.world.supervisor else None
    why = f"  {jails.problem}" if jails is not None and jails.problem else ""
    later = (
        "  started before there were jails, or its machine has no place in one"
        if jails is not None and jails.jailed
        else why
    )
    return [Fact("jail", [("none", "warning"), (later, "muted")])]


def process_facts(subject: Subject) -> list[Fact]:
    """Every process that it depends on, with its pid."""
    instance, world, template = subject.instance, subject.world, subject.read_template
    facts: list[Fact] = []
    if instance.vmm_pid is not None:
        used = f"  cpu {subject.counters.cpu_seconds:.1f} s, {size(subject.counters.rss_bytes)} resident"
        facts.append(Fact("VMM", [(f"pid {instance.vmm_pid}", "plain"), (used, "muted")]))
        if template is not None and instance.memory_backend == "uffd":
            server = f"pid {template.page_server_pid}" if template.page_server_pid else "none"
            whose = f", uid {template.page_server_uid}" if template.page_server_uid is not None else ""
            told: Piece = ("  the page server that answers its faults", "muted")
            facts.append(Fact("pages", [(f"{server}{whose}", "plain"), told]))
    if subject.own_template is not None and subject.own_template.page_server_pid:
        served: Line = [(f"pid {subject.own_template.page_server_pid}", "plain")]
        facts.append(Fact("for forks", [*served, ("  the page server that answers its forks' faults", "muted")]))
    holder = world.host.console_holder_pid
    if holder is not None:
        facts.append(Fact("consoles", [(f"pid {holder}", "plain"), ("  takes what it prints", "muted")]))
    if world.supervisor is not None:
        facts.append(Fact("owned by", [("supervisor", "muted"), (f" pid {world.supervisor.pid}", "plain")]))
    return facts


def version_facts(subject: Subject) -> list[Fact]:
    """The Firecracker that runs it, for which of its faults the snapshots are whole, and what else it does wrong."""
    instance = subject.instance
    if instance.firecracker_version is None:
        return []
    whole = _faults(instance, "full")
    parts: list[Line] = [[(instance.firecracker_version, "plain")]]
    parts += [[(f"whole snapshots: {', '.join(whole)}", "warning")]] if whole else []
    return [Fact("version", joined(parts, _separator(subject)))]


def issue_facts(subject: Subject, shown: int = 3) -> list[Fact]:
    """What else that version does wrong; GET /capabilities says it in words."""
    known = _faults(subject.instance, "warn", "refuse")
    told = f"{len(known)} known: {names(known, shown=shown, total=len(known))}"
    return [Fact("issues", [(told, "muted")])] if known else []


def guest_facts(subject: Subject) -> list[Fact]:
    """What its guest says of itself, and the processor time that it took."""
    instance, guest = subject.instance, subject.counters.guest
    parts: list[Line] = []
    if guest is not None:
        verified: Ink = "running" if guest.passes and guest.corrupt is None else "plain"
        passes = f"{count(guest.passes)} {'pass' if guest.passes == 1 else 'passes'} verified"
        parts.append([(passes, verified)])
        parts += [[("done", "muted")]] if guest.done else []
    if instance.vmm_pid is not None:
        parts.append([(f"cpu {subject.counters.cpu_seconds:.1f} s", "plain")])
    return [Fact("guest", joined(parts, _separator(subject)))] if parts and instance.vmm_pid is not None else []


def _begun(subject: Subject) -> list[Fact]:
    instance = subject.instance
    if instance.vmm_pid is None or instance.started_at is None:
        return []
    at = f"{instance.started_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return [Fact("started", [(at, "plain"), (f"  {subject.ago(instance.started_at)}", "muted")])]


def _faults(instance: Instance, *actions: str) -> list[str]:
    return [fault.name for fault in instance.known_faults if fault.action in actions]


def _dotted(subject: Subject, *words: str) -> Line:
    return joined(([(word, "plain")] for word in words), _separator(subject))


def _separator(subject: Subject) -> Piece:
    return f" {subject.glyphs.dot} ", "guide"
