"""The supervisor's verbs as commands: what each takes, what it asks, what it prints."""

import json
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from forktui.client.api import ApiError, LogSource, SupervisorClient
from forktui.text.quantities import fits, mebibytes, size
from forktui.text.remedies import in_commands
from forktui.text.safe import safe_model, safe_text
from forktui.text.table import text_table
from supervisor.models import (
    CheckpointRequest,
    CreateRequest,
    DeletionPlan,
    FanOutEstimate,
    FanOutRequest,
    ForkRequest,
    Instance,
    MemoryBackend,
    PrefetchMode,
    RecordMode,
    ResourceEstimate,
    TargetState,
    explain,
)
from supervisor.settings import Settings

Run = Callable[[SupervisorClient, Namespace, Settings], Awaitable[bool]]
Verb = Callable[[str], Awaitable[Instance]]

Model = TypeVar("Model", bound=BaseModel)
Done = TypeVar("Done")

LOG_LINE_LIMIT: Final = 4096
"""Characters of a log line that are printed."""


class UsageError(Exception):
    """A request cannot be what was asked for; the message names the first field that is wrong."""


@dataclass(frozen=True)
class Command:
    """One verb: `options` are settings that it reads; `run` returns whether all of it was done."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], None]
    run: Run
    options: tuple[str, ...] = ("json_output",)


def _request(model: type[Model], fields: dict[str, object]) -> Model:
    """Return a request's body; raises UsageError."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise UsageError(explain(error.errors()[0])) from error


def _show(instance: Instance, settings: Settings) -> None:
    """Print what has become of an instance."""
    safe = safe_model(instance)
    print(
        json.dumps(instance.model_dump(mode="json"), indent=2) if settings.json_output else f"{safe.name} {safe.state}"
    )


def _instance_row(instance: Instance, names: dict[str, str]) -> tuple[str, ...]:
    return (
        instance.name,
        instance.state.value + (f" ({instance.busy})" if instance.busy else ""),
        instance.hypervisor,
        instance.image,
        f"{instance.size_bytes >> 20}",
        instance.memory_backend or "-",
        str(instance.fork_count),
        "locked" if instance.mem_locked else "-",
        names.get(instance.source_id or "", instance.source_id or "-"),
        str(instance.vmm_pid or "-"),
        instance.id,
    )


async def _ls(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    if settings.json_output:
        host = await client.snapshot()
        templates = {template.instance_id: template.model_dump(mode="json") for template in host.templates}
        listed = [{**one.model_dump(mode="json"), "template": templates.get(one.id)} for one in host.instances]
        print(json.dumps(listed, indent=2))
        return True
    instances = await client.instances()
    head = ("NAME", "STATE", "HYPERVISOR", "IMAGE", "MIB", "BACKEND", "FORKS", "LOCK", "SOURCE", "PID", "ID")
    safe = [safe_model(instance) for instance in instances]
    names = {instance.id: instance.name for instance in safe}
    print(text_table([head, *(_instance_row(instance, names) for instance in safe)]))
    return True


async def _images(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    images = await client.images()
    if settings.json_output:
        print(json.dumps([image.model_dump(mode="json") for image in images], indent=2))
        return True
    rows = [
        (one.name, one.kind, mebibytes(one.memory_bytes or 0), one.hypervisor or "-", one.status, one.error or "")
        for one in map(safe_model, images)
    ]
    print(text_table([("NAME", "KIND", "MIB", "HYPERVISOR", "STATUS", "ERROR"), *rows]))
    return True


def _create_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--image", default="pagewalker", help="a directory in images/, or pagewalker (the default)")
    parser.add_argument("--size", help="guest memory, such as 128MB (the default)")
    parser.add_argument("--vcpus", type=int)
    parser.add_argument("--cmd", nargs="+", default=(), metavar="WORD", help="appended to the kernel command line")
    parser.add_argument(
        "--track-dirty-pages",
        action=BooleanOptionalAction,
        default=None,
        help="write only changed pages at standby and checkpoint (the default), or do without what the tracking costs",
    )


async def _create(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    chosen = settings.hypervisor if "hypervisor" in settings.model_fields_set else None
    wanted = {
        "name": options.name,
        "image": options.image,
        "size": options.size,
        "vcpus": options.vcpus,
        "hypervisor": chosen,
        "cmd": tuple(options.cmd) or None,
        "track_dirty_pages": options.track_dirty_pages,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    _show(await client.create(_request(CreateRequest, given)), settings)
    return True


def _fork_options(parser: ArgumentParser) -> None:
    parser.add_argument("source", help="an instance's name, id or unique id prefix")
    parser.add_argument(
        "--share-memory",
        action=BooleanOptionalAction,
        default=True,
        help="read the memory of a Standby source, which is locked meanwhile, or copy it",
    )
    parser.add_argument("--from-running", action="store_true", help="copy a Running source, which runs on")
    parser.add_argument("--target-state", choices=get_args(TargetState), default="Running")
    parser.add_argument("--memory-backend", choices=get_args(MemoryBackend))
    parser.add_argument("--prefetch", choices=get_args(PrefetchMode))
    parser.add_argument("--record", choices=get_args(RecordMode))


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
    fields = ("target_state", "memory_backend", "prefetch", "record", *names)
    given = {name: getattr(options, name) for name in fields if getattr(options, name) is not None}
    if options.from_running:
        return given | {"from_running": True, "share_memory": False}
    return given | {"share_memory": options.share_memory}


async def _fork(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    _show(await client.fork(options.source, _request(ForkRequest, _given(options, "name"))), settings)
    return True


def _checkpoint_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", help="a Running instance's name, id or unique id prefix")
    parser.add_argument("--name", help="of the checkpoint; SOURCE-<n> if not given")


async def _checkpoint(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    given = {"name": options.name} if options.name is not None else {}
    made = await client.checkpoint(options.source, _request(CheckpointRequest, given))
    _show(made, settings)
    if not settings.json_output:
        paused = next((phase.milliseconds for phase in made.phases if phase.name == "paused"), 0.0)
        print(safe_text(f"{options.source} was paused for {paused:.1f} ms"))
    return True


async def _fan_out(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    request = _request(FanOutRequest, _given(options, "count", "name_prefix", "concurrency", "force"))
    if options.dry_run:
        estimate = await client.fan_out_estimate(options.source, request)
        _show_estimate(estimate, settings)
        refusal = None if options.force else _does_not_fit(options.source, estimate)
        if refusal is not None:
            complain(refusal)
        return refusal is None
    result = await client.fan_out(options.source, request)
    if settings.json_output:
        print(json.dumps(result.model_dump(mode="json"), indent=2))
        return all(child.error is None for child in result.children)
    for child in result.children:
        if child.instance is not None:
            print(safe_text(f"{child.name} {child.instance.state}"))
        if child.error is not None:
            complain(f"{child.name}: {in_commands(child.error)}")
    return all(child.error is None for child in result.children)


def _show_estimate(estimate: FanOutEstimate, settings: Settings) -> None:
    if settings.json_output:
        print(json.dumps(estimate.model_dump(mode="json"), indent=2))
        return
    head = ("RESOURCE", "EACH", f"FOR {estimate.count}", "AVAILABLE", "FITS", "FROM")
    print(text_table([head, *map(_estimate_row, estimate.resources)]))
    print(f"fits: {fits(estimate)}")


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


def complain(message: str) -> None:
    """Print one line on standard error, whatever is in the message."""
    print(f"forktui: {safe_text(message, limit=LOG_LINE_LIMIT)}", file=sys.stderr)


def _references(parser: ArgumentParser) -> None:
    parser.add_argument("instances", nargs="+", metavar="INSTANCE", help="a name, id or unique id prefix")


def _for_each(verb_of: Callable[[SupervisorClient], Verb]) -> Run:
    """Return a command that does a verb to each instance; one that refuses does not keep the others from it."""

    async def run(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
        return await _show_each(options.instances, verb_of(client), _show, settings)

    return run


async def _show_each(
    references: Sequence[str],
    ask: Callable[[str], Awaitable[Model]],
    show: Callable[[Model, Settings], None],
    settings: Settings,
) -> bool:
    """Ask for something of each and show the answers: several in JSON as one array."""
    if not settings.json_output or len(references) == 1:
        return await _each(references, ask, lambda answer: show(answer, settings))
    answers: list[Model] = []
    try:
        return await _each(references, ask, answers.append)
    finally:
        # Also where the supervisor went away: what was done must be told.
        print(json.dumps([answer.model_dump(mode="json") for answer in answers], indent=2))


async def _each(references: Sequence[str], do: Callable[[str], Awaitable[Done]], then: Callable[[Done], None]) -> bool:
    done = True
    for reference in references:
        try:
            then(await do(reference))
        except ApiError as error:
            complain(in_commands(error))
            done = False
    return done


def _delete_arguments(parser: ArgumentParser) -> None:
    _references(parser)
    parser.add_argument("--cascade", action="store_true", help="delete everything below as well, forks first")
    parser.add_argument("--dry-run", action="store_true", help="print what would go, and delete nothing")


async def _delete(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    async def plan(reference: str) -> DeletionPlan:
        return await client.deletion_plan(reference, cascade=options.cascade)

    if options.dry_run:
        return await _show_each(options.instances, plan, _show_plan, settings)

    async def delete(reference: str) -> None:
        await client.delete(reference, cascade=options.cascade)

    return await _each(options.instances, delete, lambda _: None)


def _show_plan(plan: DeletionPlan, settings: Settings) -> None:
    if settings.json_output:
        print(json.dumps(plan.model_dump(mode="json"), indent=2))
        return
    rows = [
        (one.name, one.state.value, mebibytes(one.disk_bytes), mebibytes(one.private_bytes), one.id)
        for one in map(safe_model, plan.deletions)
    ]
    total = ("total", f"{plan.running} running", mebibytes(plan.disk_bytes), mebibytes(plan.private_bytes), "")
    print(text_table([("NAME", "STATE", "DISK MIB", "PRIVATE MIB", "ID"), *rows, total]))


def _logs_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("instance", metavar="INSTANCE", help="a name, id or unique id prefix")
    parser.add_argument("--tail", type=int, default=100, metavar="LINES", help="how many lines of the past")
    parser.add_argument("--follow", action="store_true", help="go on with what is added")
    parser.add_argument(
        "--source", choices=get_args(LogSource), default="app", help="the guest's console, or the VMM's log"
    )


async def _logs(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    if not options.follow:
        for line in await client.logs(options.instance, options.tail, options.source):
            print(safe_text(line, limit=LOG_LINE_LIMIT))
        return True
    async for line in client.follow_log(options.instance, options.tail, options.source):
        print(safe_text(line, limit=LOG_LINE_LIMIT), flush=True)
    return True


COMMANDS: Final = (
    Command("ls", "list the instances", lambda parser: None, _ls),
    Command(
        "images", "list the images, and what is wrong with those that cannot be used", lambda parser: None, _images
    ),
    Command("create", "boot a new instance", _create_arguments, _create, ("json_output", "hypervisor")),
    Command("fork", "make one fork of an instance", _fork_arguments, _fork),
    Command(
        "checkpoint", "make a Standby instance of a Running one, which runs on", _checkpoint_arguments, _checkpoint
    ),
    Command("fan-out", "make many forks of an instance", _fan_out_arguments, _fan_out),
    Command(
        "standby", "write a snapshot of a Running instance and end its VMM", _references, _for_each(lambda c: c.standby)
    ),
    Command("restore", "run a Standby instance on", _references, _for_each(lambda c: c.restore)),
    Command("start", "boot a Stopped instance", _references, _for_each(lambda c: c.start)),
    Command("stop", "end an instance's VMM; its memory is lost", _references, _for_each(lambda c: c.stop)),
    Command(
        "detach",
        "give a fork all of its memory, so that its source is locked no more",
        _references,
        _for_each(lambda c: c.detach),
    ),
    Command("delete", "remove an instance, or with --cascade the tree below it", _delete_arguments, _delete),
    Command("logs", "print what a guest has printed", _logs_arguments, _logs, ()),
)
