"""The command that ends what is under way."""

import json
from argparse import ArgumentParser, Namespace
from typing import Final

from forktui.actions import states
from forktui.cli.command import command_of, reference
from forktui.cli.printing import show_each
from forktui.client.api import ApiError, SupervisorClient
from forktui.text.quantities import ended
from forktui.text.safe import safe_model
from supervisor.models import Operation
from supervisor.settings import Settings


def _cancel_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "operations",
        nargs="+",
        type=reference,
        metavar="OPERATION",
        help="an operation's id, or an instance or an image that something is done to",
    )
    parser.add_argument(
        "--delete-made", action="store_true", help="delete the forks that a fan-out has made by then, which stay else"
    )


async def _cancel(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    async def find(reference: str) -> str:
        return await _operation_id(client, reference)

    async def cancel(operation_id: str) -> Operation:
        return await client.cancel(operation_id, delete_made=options.delete_made)

    return await show_each(find, options.operations, cancel, _show, settings)


async def _operation_id(client: SupervisorClient, reference: str) -> str:
    """Return the id of an operation, or of what an instance is the longest at: the others are most often its parts."""
    operations = await client.operations()
    if any(one.id == reference for one in operations):
        return reference
    # An image's is an operation of no instance.
    of_images = [one.id for one in operations if not one.instance_id and one.name == reference]
    if of_images:
        return of_images[0]
    operation = (await client.instance(reference)).operation
    if operation is None:
        raise ApiError(404, "not_found", f"{reference}: nothing is under way on it; `forktui ls` shows what is")
    return operation.id


def _show(operation: Operation, settings: Settings) -> None:
    if settings.json_output:
        print(json.dumps(operation.model_dump(mode="json"), indent=2))
        return
    print(ended(safe_model(operation)))


CANCEL: Final = command_of(states.CANCEL, _cancel_arguments, _cancel)
