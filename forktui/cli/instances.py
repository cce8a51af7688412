"""The commands that make an instance, change its state, and delete it."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from forktui.actions import creation, deletion, states
from forktui.cli.command import Command, Run, command_of, references, request
from forktui.cli.metadata import metadata_of, metadata_option
from forktui.cli.printing import each, instances_of, show, show_each
from forktui.cli.waiting import check_wait, wait_options, waited
from forktui.client.api import ApiError, SupervisorClient
from forktui.text.quantities import mebibytes
from forktui.text.safe import safe_model
from forktui.text.table import text_table
from supervisor.models import AcceptRequest, CreateRequest, DeletionPlan, Instance
from supervisor.programs import YesOrNo
from supervisor.settings import Settings

Verb = Callable[[str], Awaitable[Instance]]


def _create_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("--image", default="pagewalker", help="a directory in images/, or pagewalker (the default)")
    parser.add_argument("--size", help="guest memory, such as 128MB (the default)")
    parser.add_argument("--vcpus", type=int)
    parser.add_argument("--cmd", nargs="+", action="extend", metavar="WORD", help="appended to the kernel command line")
    parser.add_argument(
        "--track-dirty-pages",
        action=YesOrNo,
        default=None,
        help="write only changed pages at standby and checkpoint (the default), or do without what the tracking costs",
    )
    metadata_option(parser)
    wait_options(parser)


async def _create(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    chosen = settings.hypervisor if "hypervisor" in settings.model_fields_set else None
    wanted = {
        "name": options.name,
        "image": options.image,
        "size": options.size,
        "vcpus": options.vcpus,
        "hypervisor": chosen,
        "cmd": options.cmd and tuple(options.cmd),
        "track_dirty_pages": options.track_dirty_pages,
        "readiness": options.readiness,
        "metadata": metadata_of(options.metadata),
    }
    check_wait(options)
    given = {name: value for name, value in wanted.items() if value is not None}
    made, done = await waited(client, [await client.create(request(CreateRequest, given))], options)
    show(made[0], settings)
    return done


def _for_each(verb_of: Callable[[SupervisorClient], Verb]) -> Run:
    """Return a command that does a verb to each instance; one that refuses does not keep the others from it."""

    async def run(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
        return await show_each(instances_of(client), options.instances, verb_of(client), show, settings)

    return run


def _delete_arguments(parser: ArgumentParser) -> None:
    references(parser)
    parser.add_argument("--cascade", action="store_true", help="delete everything below as well, forks first")
    parser.add_argument("--dry-run", action="store_true", help="print what would go, and delete nothing")


async def _delete(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    async def plan(reference: str) -> DeletionPlan:
        return await client.deletion_plan(reference, cascade=options.cascade)

    if options.dry_run:
        return await show_each(instances_of(client), options.instances, plan, _show_plan, settings)

    async def delete(reference: str) -> None:
        try:
            await client.delete(reference, cascade=options.cascade)
        except ApiError as error:
            # With the tree of an instance that was named before it.
            if not options.cascade or error.status != HTTPStatus.NOT_FOUND:
                raise

    return await each(instances_of(client), options.instances, delete, lambda _: None)


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


def _accept_arguments(parser: ArgumentParser) -> None:
    references(parser)
    parser.add_argument("--changed", action="store_true", help="also where it is another memory than what was noted")


async def _accept(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    async def accept(reference: str) -> Instance:
        return await client.accept(reference, AcceptRequest(changed=options.changed))

    return await show_each(instances_of(client), options.instances, accept, show, settings)


CREATE: Final = command_of(creation.CREATE, _create_arguments, _create, ("json_output", "hypervisor"))
VERBS: Final = (
    command_of(states.STANDBY, references, _for_each(lambda c: c.standby)),
    command_of(states.RESTORE, references, _for_each(lambda c: c.restore)),
    Command("start", "boot a Stopped instance", references, _for_each(lambda c: c.start)),
    command_of(states.STOP, references, _for_each(lambda c: c.stop)),
    command_of(states.DETACH, references, _for_each(lambda c: c.detach)),
    command_of(states.ACCEPT, _accept_arguments, _accept),
)
DELETE: Final = command_of(deletion.DELETE, _delete_arguments, _delete)
