"""A guest's console as a terminal has it: what it prints, byte by byte, and what is typed into it, over a WebSocket.

Binary messages are bytes, both ways. A text message of the server is JSON: first `{"position": N}`, the place of the
byte that follows in all that the guest has printed; then `{"skipped": N}`, where more was printed than is kept, and
`{"dropped": N}`, where more was typed than the guest reads. It closes with a reason.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import nullcontext
from typing import Any, Final

from aiohttp import WSCloseCode, WSMsgType, web

from supervisor.api.closing import Closing
from supervisor.api.requests import ConsoleQuery
from supervisor.consoles.reading import LogReader, Piece
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.runtime.console_input import Console, ConsoleInput
from supervisor.system.watching import Watch

TAIL_BYTES: Final = 4096
"""What of the past a terminal is shown at first: a screen."""
READ_BYTES: Final = 64 << 10
TYPED_BYTES: Final = 64 << 10
"""The most of one message."""
LOOK_SECONDS: Final = 0.5
GATHER_SECONDS: Final = 0.01
"""An echo is to come at once, and what a guest prints in a row together."""
HEARTBEAT_SECONDS: Final = 20.0
"""A terminal that is gone without a word is noticed after it: nobody else may type meanwhile."""
MOST_REASON: Final = 120
"""Bytes of a reason that a close frame has room for: 123, RFC 6455, 5.5."""


async def serve_console(
    request: web.Request,
    query: ConsoleQuery,
    console: Console,
    closing: Closing,
) -> web.StreamResponse:
    """Serve a console until its peer leaves, its VMM has ended, or the server closes."""
    response = web.WebSocketResponse(compress=False, max_msg_size=TYPED_BYTES, heartbeat=HEARTBEAT_SECONDS)
    with console.typing or nullcontext() as keyboard:
        if not response.can_prepare(request):
            raise BadRequestError("a console is a WebSocket: ask for an upgrade (RFC 6455), or for logs")
        await response.prepare(request)
        parts = [_take_what_is_typed(response, keyboard), _send_what_is_printed(response, query, console)]
        reason = await _first_end([*parts, keyboard.pump()] if keyboard else parts, closing)
        await response.close(code=WSCloseCode.GOING_AWAY, message=reason.encode()[:MOST_REASON])
    return response


async def _first_end(parts: Iterable[Coroutine[Any, Any, str]], closing: Closing) -> str:
    """Return why the one ended that was the first to."""
    tasks = list(map(asyncio.create_task, parts))
    try:
        async with closing.bound(None):
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task in done).result()
    except TimeoutError:
        return "the supervisor is stopping"
    except SupervisorError as error:
        return error.message
    except OSError as error:
        return str(error.strerror or error)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take_what_is_typed(response: web.WebSocketResponse, keyboard: ConsoleInput | None) -> str:
    async for message in response:
        if message.type is not WSMsgType.BINARY:
            return "only binary messages are typed"
        if keyboard is None:
            return "this console is only watched"
        if not keyboard.type(message.data):
            await response.send_json({"dropped": len(message.data)})
    return "its peer has left"


async def _send_what_is_printed(response: web.WebSocketResponse, query: ConsoleQuery, console: Console) -> str:
    reader = LogReader(console.log, query.position or 0)
    try:
        if query.position is None:
            past = await asyncio.to_thread(reader.tail, TAIL_BYTES)
            await response.send_json({"position": reader.position - len(past)})
            await response.send_bytes(past)
        else:
            await response.send_json({"position": reader.position})
        async with contextlib.aclosing(_pieces(reader, console.ended)) as pieces:
            async for piece in pieces:
                if piece.anew:
                    await response.send_json({"position": reader.position - len(piece.data)})
                elif piece.skipped:
                    await response.send_json({"skipped": piece.skipped})
                if piece.data:
                    await response.send_bytes(piece.data)
    finally:
        reader.release()
    return "its VM has ended"


async def _pieces(reader: LogReader, ended: "asyncio.Future[Any]") -> AsyncGenerator[Piece, None]:
    """Yield what is printed, until the VMM has ended and all of it is told."""
    watch = Watch()
    try:
        await asyncio.to_thread(watch.set, (reader.path.parent,))
        while True:
            last = ended.done()
            while (piece := await asyncio.to_thread(reader.read, READ_BYTES)).data or piece.skipped or piece.anew:
                yield piece
            if last:
                return
            await watch.wait(LOOK_SECONDS, GATHER_SECONDS)
    finally:
        watch.close()
