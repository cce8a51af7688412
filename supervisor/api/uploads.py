"""Files that are sent: a multipart body, whose first part is the request, or a body that is one file.

They are read as they come, and bounded by who writes them.
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Final, TypeVar

from aiohttp import BodyPartReader, ClientPayloadError, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from supervisor.api.closing import Closing
from supervisor.api.requests import BODY_LIMIT, BodyModel, UnsupportedMediaTypeError, accept_body, parse_json, refusal
from supervisor.errors import BadRequestError
from supervisor.models import quoted
from supervisor.operations.images import DIRECTORY, Part

REQUEST: Final = "request"
MULTIPART: Final = "multipart/form-data"
PIECE_SECONDS: Final = 60.0
"""For which no byte of a body may come: who sends it may have to read it from a slow disk."""
PIECE: Final = 256 << 10

Read = TypeVar("Read")


async def multipart(
    request: web.Request, model: type[BodyModel], closing: Closing
) -> tuple[BodyModel, AsyncIterator[Part]]:
    """Return what is asked for, and the files that follow; raises BadRequestError and UnsupportedMediaTypeError."""
    if request.content_type != MULTIPART:
        raise UnsupportedMediaTypeError(
            f"the body is {quoted(request.content_type)}, and only {MULTIPART} is read here: a part {REQUEST}, "
            "which is JSON, then the files"
        )
    await accept_body(request)
    try:
        reader = await request.multipart()
    except ValueError as error:
        raise BadRequestError(f"the body is no {MULTIPART}: {error}") from error
    first = await _next(reader, closing)
    if first is None or first.name != REQUEST:
        raise BadRequestError(f"the first part has to be {REQUEST}, which is JSON")
    text = bytearray()
    async for piece in _pieces(first, closing):
        text += piece
        if len(text) > BODY_LIMIT:
            raise BadRequestError(f"the part {REQUEST} has more than {BODY_LIMIT >> 20} MiB")
    try:
        return parse_json(bytes(text), model), _parts(reader, closing)
    except ValidationError as error:
        raise refusal(error) from error


async def one_file(request: web.Request, closing: Closing) -> AsyncIterator[Part]:
    """Yield the body, which is a tar of a directory."""
    await accept_body(request)

    async def pieces() -> AsyncIterator[bytes]:
        while piece := await _bounded(closing, request.content.read(PIECE)):
            yield piece

    yield Part(DIRECTORY, pieces())


async def _parts(reader: MultipartReader, closing: Closing) -> AsyncIterator[Part]:
    while (part := await _next(reader, closing)) is not None:
        yield Part(part.name or "", _pieces(part, closing))


async def _next(reader: MultipartReader, closing: Closing) -> BodyPartReader | None:
    try:
        part = await _bounded(closing, reader.next())
    except AssertionError as error:
        # aiohttp's, where the boundary is longer than what it reads of such a part.
        raise BadRequestError("the body begins with a part _charset_, which is not read here") from error
    if isinstance(part, MultipartReader):
        raise BadRequestError("a part is a multipart body itself, and only files are read")
    return part


async def _pieces(part: BodyPartReader, closing: Closing) -> AsyncIterator[bytes]:
    while piece := await _bounded(closing, part.read_chunk(PIECE)):
        yield piece


async def _bounded(closing: Closing, reading: Awaitable[Read]) -> Read:
    try:
        async with closing.body(PIECE_SECONDS, "no more of the body arrived"):
            return await reading
    except HttpProcessingError as error:
        raise BadRequestError("a part has a header that is none, is too long, or is one too many") from error
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError, RuntimeError, ValueError) as error:
        # aiohttp raises RuntimeError where the connection has gone before a read.
        raise BadRequestError("the body ended before its end; send it whole") from error
