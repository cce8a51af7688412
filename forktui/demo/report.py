"""What a demo did, judged: whether each fork verified its memory and hardly faulted. Pure."""

from dataclasses import asdict, dataclass

from forktui.demo.scenario import FORK_PREFIX, SOURCE
from forktui.model.world import World
from forktui.text.quantities import milliseconds, named, plural
from forktui.text.table import text_table
from supervisor.models import Instance, State

RESIDUAL_SHARE = 0.01
"""Of the recorded pages: how many faults a prefetched fork may still have."""


@dataclass(frozen=True)
class Source:
    """The instance that was forked; `size_bytes` is its memory."""

    id: str
    name: str
    image: str
    state: str
    size_bytes: int
    fork_count: int
    mem_locked: bool


@dataclass(frozen=True)
class Recorded:
    """The hot pages of the template, and how many runs they make."""

    pages: int
    runs: int


@dataclass(frozen=True)
class Fork:
    """One prefetched fork; `phases` are milliseconds, `residual_faults` those after prefetch was complete."""

    name: str
    state: str
    phases: dict[str, float]
    faults: int
    prefetched_pages: int
    residual_faults: int
    restored: bool
    passes: int
    corrupt: str | None


@dataclass(frozen=True)
class Report:
    """The outcome of a demo; `reasons` says why it is not `ok`."""

    hypervisor: str
    hypervisor_version: str
    source: Source
    recorded: Recorded
    forks: tuple[Fork, ...]
    ok: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON has it."""
        return asdict(self)


def judge(world: World, wanted: int) -> Report:
    """Return the report on a demo of `wanted` forks; the world must have its supervisor and its source."""
    assert world.supervisor is not None
    source = next(instance for instance in world.instances.values() if instance.name == SOURCE)
    template = world.template_of(source)
    recorded = Recorded(template.recorded_pages, template.recorded_runs) if template else Recorded(0, 0)
    children = [
        instance
        for instance in world.instances.values()
        if instance.source_id == source.id and instance.name.startswith(f"{FORK_PREFIX}-")
    ]
    forks = tuple(_fork(world, child) for child in sorted(children, key=lambda child: (len(child.name), child.name)))
    reasons = [reason for fork in forks for reason in _failings(fork, recorded)]
    if len(forks) != wanted:
        reasons.insert(0, f"made {len(forks)} of {plural(wanted, 'fork')}")
    if recorded.pages == 0:
        reasons.insert(0, "no hot pages were recorded")
    return Report(
        hypervisor=world.supervisor.hypervisor,
        hypervisor_version=world.supervisor.hypervisor_version,
        source=Source(
            id=source.id,
            name=source.name,
            image=source.image,
            state=source.state.value,
            size_bytes=source.size_bytes,
            fork_count=source.fork_count,
            mem_locked=source.mem_locked,
        ),
        recorded=recorded,
        forks=forks,
        ok=not reasons,
        reasons=tuple(reasons),
    )


def _fork(world: World, instance: Instance) -> Fork:
    counters = world.statistics_of(instance.id)
    guest = counters.guest
    return Fork(
        name=instance.name,
        state=instance.state.value,
        phases={phase.name: phase.milliseconds for phase in instance.phases},
        faults=counters.faults,
        prefetched_pages=counters.prefetched_pages,
        residual_faults=counters.residual_faults,
        restored=guest is not None and guest.restored,
        passes=guest.passes if guest else 0,
        corrupt=guest.corrupt if guest else None,
    )


def _failings(fork: Fork, recorded: Recorded) -> list[str]:
    if fork.state != State.RUNNING:
        return [f"{fork.name} is {fork.state}"]
    failings = []
    if fork.corrupt is not None:
        failings.append(f"found its memory CORRUPT at {fork.corrupt}")
    if not fork.restored:
        failings.append("did not notice that it was restored")
    if fork.passes == 0:
        failings.append("verified nothing")
    if fork.prefetched_pages == 0:
        failings.append("had no page prefetched")
    if fork.residual_faults > recorded.pages * RESIDUAL_SHARE:
        share = f"{RESIDUAL_SHARE:.0%} of the {recorded.pages} recorded pages"
        failings.append(f"had {fork.residual_faults} faults after prefetch, more than {share}")
    return [f"{fork.name} {failing}" for failing in failings]


def table(report: Report) -> str:
    """Return the report as lines of text, a row for each fork."""
    phases = list(dict.fromkeys(name for fork in report.forks for name in fork.phases))
    head = ("FORK", "STATE", "PASSES", "FAULTS", "PREFETCHED", "RESIDUAL", *(name.upper() for name in phases))
    source = report.source
    lock = f", mem_locked by {plural(source.fork_count, 'fork')}" if source.mem_locked else ""
    runs = f"{report.recorded.runs} {named(report.recorded.runs, 'run')}"
    verdict = "ok: every fork verified its memory" if report.ok else "FAILED: " + "; ".join(report.reasons)
    return "\n".join(
        (
            f"hypervisor  {report.hypervisor} {report.hypervisor_version}",
            f"source      {source.name} ({source.image}, {source.size_bytes >> 20} MiB): {source.state}{lock}",
            f"recorded    {report.recorded.pages} hot pages in {runs}",
            "",
            text_table([head, *(_row(fork, phases) for fork in report.forks)]),
            "",
            verdict,
        )
    )


def _row(fork: Fork, phases: list[str]) -> tuple[str, ...]:
    counts = (fork.passes, fork.faults, fork.prefetched_pages, fork.residual_faults)
    times = (milliseconds(fork.phases[name]) if name in fork.phases else "-" for name in phases)
    return (fork.name, fork.state, *map(str, counts), *times)
