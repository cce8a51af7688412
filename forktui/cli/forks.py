"""The commands that make children of an instance: a fork, a checkpoint, many forks."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final, get_args

from forktui.actions import forks
from forktui.cli.command import command_of, reference, request
from forktui.cli.metadata import metadata_of, metadata_option
from forktui.cli.printing import complain, show
from forktui.cli.waiting import check_wait, percentiles, summary, wait_options, waited
from forktui.client.api import SupervisorClient
from forktui.text.quantities import fits, plural, size
from forktui.text.remedies import in_commands
from forktui.text.safe import safe_text
from forktui.text.table import text_table
from supervisor.models import (
    CheckpointRequest,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    ForkRequest,
    Instance,
    MemoryBackend,
    PrefetchMode,
    RecordMode,
    ResourceEstimate,
    TargetState,
)
from supervisor.programs import YesOrNo
from supervisor.settings import Settings

CANCELLED: Final = "cancelled"
"""The code of a child that a fan-out did not make because it was to end."""


def _fork_options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=reference, help="an instance's name, id or unique id prefix")
    parser.add_argument(
        "--share-memory",
        action=YesOrNo,
        default=True,
        help="read the memory of a Standby source, which is locked meanwhile, or copy it",
    )
    parser.add_argument("--from-running", action="store_true", help="copy a Running source, which runs on")
    parser.add_argument("--target-state", choices=get_args(TargetState), default="Running")
    parser.add_argument("--memory-backend", choices=get_args(MemoryBackend))
    parser.add_argument("--prefetch", choices=get_args(PrefetchMode))
    parser.add_argument("--record", choices=get_args(RecordMode))
    metadata_option(parser)
    wait_options(parser)


def _fork_arguments(parser: ArgumentParser) -> None:
    _fork_options(parser)
    parser.add_argument("--name", help="of the fork; SOURCE-<n> if not given")


def _fan_out_arguments(parser: ArgumentParser) -> None:
    _fork_options(parser)
    parser.add_argument("count", type=int, help="how many forks")
    parser.add_argument("--name-prefix", help="of the forks' names; SOURCE if not given")
    parser.add_argument("--concurrency", type=int, help="how many at once")
    parser.add_argument("--dry-run", action="store_true", help="print how many would fit, and make none")
    parser.add_argument("--force", action="store_true", default=None, help="make them although they would not fit")


def _given(options: Namespace, *names: str) -> dict[str, object]:
    """Return the fields of a fork's request that were given, besides `names`; the supervisor has the other defaults."""
    check_wait(options)
    fields = ("target_state", "memory_backend", "prefetch", "record", "readiness", *names)
    given = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    if options.metadata is not None:
        given["metadata"] = metadata_of(options.metadata)
    if options.from_running:
        return given | {"from_running": True, "share_memory": False}
    return given | {"share_memory": options.share_memory}


async def _fork(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    made = await client.fork(options.source, request(ForkRequest, _given(options, "name")))
    made_and_ready, done = await waited(client, [made], options)
    show(made_and_ready[0], settings)
    return done


def _checkpoint_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=reference, help="a Running instance's name, id or unique id prefix")
    parser.add_argument("--name", help="of the checkpoint; SOURCE-<n> if not given")
    metadata_option(parser)


async def _checkpoint(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    wanted = {"name": options.name, "metadata": metadata_of(options.metadata)}
    given = {name: value for name, value in wanted.items() if value is not None}
    made = await client.checkpoint(options.source, request(CheckpointRequest, given))
    show(made, settings)
    if not settings.json_output:
        paused = next((phase.milliseconds for phase in made.phases if phase.name == "paused"), 0.0)
        print(safe_text(f"{options.source} was paused for {paused:.1f} ms"))
    return True


async def _fan_out(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    wanted = request(FanOutRequest, _given(options, "count", "name_prefix", "concurrency", "force"))
    if options.dry_run:
        estimate = await client.fan_out_estimate(options.source, wanted)
        _show_estimate(estimate, settings)
        refusal = None if options.force else _does_not_fit(options.source, estimate)
        if refusal is not None:
            complain(refusal)
        return refusal is None
    result = await client.fan_out(options.source, wanted)
    made, done = await waited(client, [one.instance for one in result.children if one.instance is not None], options)
    return _show_forks(result, made, options.wait, settings) and done


def _show_forks(result: FanOutResult, made: Sequence[Instance], told: bool, settings: Settings) -> bool:
    """Print what came of a fan-out, with its forks as they are by now; return whether all of them were made."""
    by_id = {one.id: one for one in made}
    children = [
        child if child.instance is None else child.model_copy(update={"instance": by_id[child.instance.id]})
        for child in result.children
    ]
    if settings.json_output:
        shown = result.model_copy(update={"children": tuple(children)}).model_dump(mode="json")
        found = {name: {"p50": p50, "p95": p95} for name, (p50, p95) in percentiles(made).items()} if told else {}
        print(json.dumps(shown | ({"percentiles_ms": found} if told else {}), indent=2))
        return all(child.error is None for child in children)
    for child in children:
        if child.instance is not None:
            print(safe_text(f"{child.name} {child.instance.state}"))
        if child.error is not None and child.error.code != CANCELLED:
            complain(f"{child.name}: {in_commands(child.error)}")
    if told and (line := summary(made)):
        print(line)
    unmade = [child.error for child in children if child.error is not None and child.error.code == CANCELLED]
    if unmade:
        complain(f"{plural(len(unmade), 'fork')} not made: {unmade[0].message}")
    return all(child.error is None for child in children)


def _show_estimate(estimate: FanOutEstimate, settings: Settings) -> None:
    if settings.json_output:
        print(json.dumps(estimate.model_dump(mode="json"), indent=2))
        return
    head = ("RESOURCE", "EACH", f"FOR {estimate.count}", "AVAILABLE", "FITS", "FROM")
    print(text_table([head, *map(_estimate_row, estimate.resources)]))
    print(f"fits: {fits(estimate)}")
    if estimate.copied_bytes:
        print(f"each fork copies {size(estimate.copied_bytes)} of disks before it runs")


def _does_not_fit(source: str, estimate: FanOutEstimate) -> str | None:
    """Return why a fan-out would be refused and what would allow it; None where it fits."""
    if estimate.count <= estimate.fits:
        return None
    fewer = f"ask for at most {estimate.fits}" if estimate.fits else "free some of it"
    return f"{source}: a fan-out of {estimate.count} does not fit: {fits(estimate)}; {fewer}, or give --force"


def _estimate_row(row: ResourceEstimate) -> tuple[str, ...]:
    shown = size if row.name in ("memory", "disk") else str
    available = "-" if row.available is None else shown(row.available)
    most = "-" if row.fits is None else str(row.fits)
    return (row.name, shown(row.per_fork), shown(row.needed), available, most, safe_text(row.basis))


FORK: Final = command_of(forks.FORK, _fork_arguments, _fork)
CHECKPOINT: Final = command_of(forks.CHECKPOINT, _checkpoint_arguments, _checkpoint)
FAN_OUT: Final = command_of(forks.FAN_OUT, _fan_out_arguments, _fan_out)
