"""The commands that look: instances, images, logs."""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Final, get_args

from forktui.cli.command import Command, reference
from forktui.cli.printing import LINE_LIMIT, while_it_is_read
from forktui.client.api import LogSource, SupervisorClient
from forktui.text.quantities import deleted, mebibytes, progress
from forktui.text.safe import safe_model, safe_text
from forktui.text.table import text_table
from supervisor.models import MOST_LOG_LINES, Instance
from supervisor.settings import Settings


def _instance_row(instance: Instance, names: dict[str, str]) -> tuple[str, ...]:
    return (
        instance.name,
        instance.state.value + _under_way(instance),
        instance.hypervisor,
        instance.image,
        f"{instance.size_bytes >> 20}",
        instance.memory_backend or "-",
        str(instance.fork_count),
        "locked" if instance.mem_locked else "-",
        _source(instance, names),
        str(instance.vmm_pid or "-"),
        instance.id,
    )


def _source(instance: Instance, names: dict[str, str]) -> str:
    if instance.source_id is None:
        return "-"
    return names.get(instance.source_id) or deleted(instance.source_id)


def _under_way(instance: Instance) -> str:
    operation = instance.operation
    if operation is None:
        return ""
    return f" ({operation.verb})" if operation.total is None else f" ({operation.verb}: {progress(operation)})"


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


def _lines(word: str) -> int:
    if not word.isdecimal() or int(word) > MOST_LOG_LINES:
        raise ArgumentTypeError(f"{word!r} is no number of lines from 0 to {MOST_LOG_LINES}")
    return int(word)


def _logs_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("instance", type=reference, metavar="INSTANCE", help="a name, id or unique id prefix")
    parser.add_argument("--tail", type=_lines, default=100, metavar="LINES", help="how many lines of the past")
    parser.add_argument("--follow", action="store_true", help="go on with what is added")
    parser.add_argument(
        "--source", choices=get_args(LogSource), default="app", help="the guest's console, or the VMM's log"
    )


async def _logs(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    if not options.follow:
        for line in await client.logs(options.instance, options.tail, options.source):
            print(safe_text(line, limit=LINE_LIMIT))
        return True
    async with while_it_is_read():
        async for line in client.follow_log(options.instance, options.tail, options.source):
            print(safe_text(line, limit=LINE_LIMIT), flush=True)
    return True


LS: Final = Command("ls", "list the instances", lambda parser: None, _ls)
IMAGES: Final = Command(
    "images", "list the images, and what is wrong with those that cannot be used", lambda parser: None, _images
)
LOGS: Final = Command("logs", "print what a guest has printed", _logs_arguments, _logs, ())
