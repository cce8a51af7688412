"""What commands print: what was answered, to each of several, and what was refused."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Final, TypeVar

from pydantic import BaseModel

from forktui.client.api import ApiError, SupervisorClient
from forktui.text.remedies import in_commands
from forktui.text.safe import safe_model, safe_text
from forktui.tui.hang_up import on_hang_up
from supervisor.models import Instance
from supervisor.programs import say
from supervisor.settings import Settings

LINE_LIMIT: Final = 4096
"""Characters of a line that are printed."""

Model = TypeVar("Model", bound=BaseModel)
Done = TypeVar("Done")
Find = Callable[[str], Awaitable[str]]
"""Returns the id of what a reference means; raises ApiError."""


def complain(message: str) -> None:
    """Print one line on standard error, whatever is in the message."""
    say(f"forktui: {safe_text(message, limit=LINE_LIMIT)}")


@contextlib.asynccontextmanager
async def while_it_is_read() -> AsyncIterator[None]:
    """End the body where whoever reads standard output goes, also while nothing is printed: raises BrokenPipeError."""
    task, gone = asyncio.current_task(), asyncio.Event()
    assert task is not None

    def hung_up() -> None:
        gone.set()
        task.cancel()

    with contextlib.ExitStack() as listening:
        # A file has no reader, and what a program embeds no descriptor.
        with contextlib.suppress(OSError):
            # A failed write may tell first: what is closed behind it is not to be cancelled.
            listening.callback(on_hang_up(sys.stdout.fileno(), hung_up))
        try:
            yield
        except asyncio.CancelledError:
            if gone.is_set():
                raise BrokenPipeError from None
            raise


def show(instance: Instance, settings: Settings) -> None:
    """Print what has become of an instance."""
    safe = safe_model(instance)
    print(
        json.dumps(instance.model_dump(mode="json"), indent=2) if settings.json_output else f"{safe.name} {safe.state}"
    )


def instances_of(client: SupervisorClient) -> Find:
    """Return how an instance is found."""

    async def find(reference: str) -> str:
        return (await client.instance(reference)).id

    return find


async def show_each(
    find: Find,
    references: Sequence[str],
    ask: Callable[[str], Awaitable[Model]],
    tell: Callable[[Model, Settings], None],
    settings: Settings,
) -> bool:
    """Ask for something of each and tell the answers: several in JSON as one array."""
    if not settings.json_output or len(references) == 1:
        return await each(find, references, ask, lambda answer: tell(answer, settings))
    answers: list[Model] = []
    try:
        return await each(find, references, ask, answers.append)
    finally:
        # Also where the supervisor went away: what was done must be told.
        print(json.dumps([answer.model_dump(mode="json") for answer in answers], indent=2))


async def each(
    find: Find,
    references: Sequence[str],
    do: Callable[[str], Awaitable[Done]],
    then: Callable[[Done], None],
) -> bool:
    """Do something to each by its id, and what comes then; one that refuses does not keep the others from it.

    All are found before the first is touched, and none is where one is not found: a word of the line is wrong, and
    which, nobody knows. Once one is gone, its name may be the beginning of another's id.
    """
    meant: dict[str, str] = {}
    right = True
    for reference in references:
        try:
            # Two words may mean one: it is done to once.
            meant.setdefault(await find(reference), reference)
        except ApiError as error:
            complain(in_commands(error))
            right = False
    if not right:
        return False
    done = True
    for found_id, reference in meant.items():
        try:
            then(await do(found_id))
        except ApiError as error:
            unnamed = error.status == HTTPStatus.NOT_FOUND and reference != found_id
            complain(f"{reference}: {in_commands(error)}" if unnamed else in_commands(error))
            done = False
    return done
