"""Events of the wire as models; a large one in pieces, between which others have their turn."""

import asyncio
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from supervisor.models import Event, InstanceStatistics

EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)
EVENT_TYPES: Final = frozenset(
    get_args(model.model_fields["type"].annotation)[0] for model in get_args(get_args(Event)[0])
)
LARGE: Final = 1 << 18
"""Characters of an event that take milliseconds: the counters of six hundred instances."""
AT_ONCE: Final = 250
"""Models that are made in a millisecond or two, between two pauses."""
PAUSE_SECONDS: Final = 0.004
"""For others: a key passes through many turns of the loop before it is drawn, and would wait for a piece at each."""

_STATISTICS: Final = '{"type":"statistics",'
"""As a supervisor writes them; written otherwise they are decoded all the same, in one piece."""

Member = TypeVar("Member", bound=BaseModel)


async def decode(data: str) -> Event:
    """Return an event of a known type; raises ValidationError.

    A snapshot is taken in one piece, which takes a quarter of the time: before it there is nothing that a key would do.
    """
    if len(data) < LARGE or not data.startswith(_STATISTICS):
        return EVENT.validate_json(data)
    try:
        fields = from_json(data)
    except ValueError:
        # To be told in the words of the models.
        return EVENT.validate_json(data)
    match fields:
        case {"type": "statistics", "instances": list(counters)}:
            fields["instances"] = await _in_pieces(InstanceStatistics, counters)
    return EVENT.validate_python(fields)


async def _in_pieces(model: type[Member], values: list[Any]) -> tuple[Member, ...]:
    made: list[Member] = []
    for begin in range(0, len(values), AT_ONCE):
        made += map(model.model_validate, values[begin : begin + AT_ONCE])
        await asyncio.sleep(PAUSE_SECONDS)
    return tuple(made)
