"""What commands print: what was answered, to each of several, and what was refused."""

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from pydantic import BaseModel

from forktui.client.api import ApiError
from forktui.text.remedies import in_commands
from forktui.text.safe import safe_model, safe_text
from supervisor.models import Instance
from supervisor.settings import Settings

LINE_LIMIT: Final = 4096
"""Characters of a line that are printed."""

Model = TypeVar("Model", bound=BaseModel)
Done = TypeVar("Done")


def complain(message: str) -> None:
    """Print one line on standard error, whatever is in the message."""
    print(f"forktui: {safe_text(message, limit=LINE_LIMIT)}", file=sys.stderr)


def show(instance: Instance, settings: Settings) -> None:
    """Print what has become of an instance."""
    safe = safe_model(instance)
    print(
        json.dumps(instance.model_dump(mode="json"), indent=2) if settings.json_output else f"{safe.name} {safe.state}"
    )


async def show_each(
    references: Sequence[str],
    ask: Callable[[str], Awaitable[Model]],
    tell: Callable[[Model, Settings], None],
    settings: Settings,
) -> bool:
    """Ask for something of each and tell the answers: several in JSON as one array."""
    if not settings.json_output or len(references) == 1:
        return await each(references, ask, lambda answer: tell(answer, settings))
    answers: list[Model] = []
    try:
        return await each(references, ask, answers.append)
    finally:
        # Also where the supervisor went away: what was done must be told.
        print(json.dumps([answer.model_dump(mode="json") for answer in answers], indent=2))


async def each(references: Sequence[str], do: Callable[[str], Awaitable[Done]], then: Callable[[Done], None]) -> bool:
    """Do something to each, and what comes then; one that refuses does not keep the others from it."""
    done = True
    for reference in references:
        try:
            then(await do(reference))
        except ApiError as error:
            complain(in_commands(error))
            done = False
    return done
