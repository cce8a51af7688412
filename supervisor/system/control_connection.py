"""The supervisor's connection to a process of its own: requests, their answers, and events."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from supervisor.errors import SupervisorError
from supervisor.system.control_lines import LINE_BYTES, decode, encode
from supervisor.system.log_text import one_line
from supervisor.system.unix_sockets import peer_credentials

ANSWER_SECONDS: Final = 10.0


class Streams(NamedTuple):
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def open_streams(who: str, control: Path, pid: int, failure: type[SupervisorError]) -> Streams:
    """Connect to the process `pid`; raises `failure`, of `who`, when it is not who listens at `control`."""
    try:
        streams = Streams(*await asyncio.open_unix_connection(control, limit=2 * LINE_BYTES))
    except OSError as error:
        raise failure(f"{who} does not listen at {control}: {error.strerror}") from error
    listener = peer_credentials(streams.writer.get_extra_info("socket")).pid
    if listener != pid:
        streams.writer.close()
        raise failure(f"{who} is not who listens at {control}: that is pid {listener}")
    return streams


class Connection:
    """A connection to a process of its own, which its errors, all of them a `failure`, call `who`.

    Each event is given to `on_event`, which raises ValueError or TypeError where it is none.
    """

    def __init__(
        self,
        who: str,
        streams: Streams,
        on_event: Callable[[dict[str, Any]], None],
        failure: type[SupervisorError],
    ) -> None:
        self._who = who
        self._failure = failure
        self._writer = streams.writer
        # So that `drain` waits until nothing of a line is left which another one could come into.
        self._writer.transport.set_write_buffer_limits(0)
        self._socket = streams.writer.get_extra_info("socket").dup()
        self._on_event = on_event
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._handing = asyncio.Lock()
        self._reading = asyncio.create_task(self._read(streams.reader), name=who)

    async def request(self, verb: str, seconds: float | None = ANSWER_SECONDS, **fields: Any) -> Any:
        """Return the result of a request; raises `failure` where that is an error, or when none came in time."""
        if self._writer.is_closing():
            raise self.error("is not connected")
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode({"id": number, "verb": verb, **fields}))
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise self.error(f"did not answer {verb} within {seconds:g} s") from None
        finally:
            self._answers.pop(number, None)

    async def hand(self, verb: str, descriptors: Sequence[int], **fields: Any) -> Any:
        """Return the result of a request that comes with descriptors, as `request` does; they stay the caller's."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async with self._handing:
                    answer = await self._handed(verb, descriptors, fields)
                return await answer
        except TimeoutError:
            raise self.error(f"did not answer {verb} within {ANSWER_SECONDS:g} s") from None
        except OSError as error:
            raise self.error(f"cannot be handed what {verb} takes: {error.strerror or error}") from error

    async def _handed(self, verb: str, descriptors: Sequence[int], fields: dict[str, Any]) -> asyncio.Future[Any]:
        """Send a request once there is room for it; returns the answer that is to come. Raises OSError."""
        while True:
            await self._writer.drain()
            if self._writer.is_closing():
                raise self.error("is not connected")
            with contextlib.suppress(BlockingIOError):
                return self._send(verb, descriptors, fields)
            await _writable(self._socket)

    def post(self, verb: str, descriptors: Sequence[int], **fields: Any) -> asyncio.Future[Any]:
        """Ask at once for what comes with descriptors; raises `failure` where that cannot be.

        Returns the answer that is to come; nobody need look at it.
        """
        if self._writer.is_closing() or self._writer.transport.get_write_buffer_size():
            raise self.error("takes no request now")
        try:
            return self._send(verb, descriptors, fields)
        except OSError as error:
            raise self.error(f"takes no request now: {error.strerror}") from error

    def _send(self, verb: str, descriptors: Sequence[int], fields: dict[str, Any]) -> asyncio.Future[Any]:
        """Send a request with descriptors, and return the answer that is to come; raises OSError.

        A line is sent whole or not at all: unix_stream_sendmsg in net/unix/af_unix.c makes one buffer of it.
        """
        number = next(self._numbers)
        socket.send_fds(self._socket, [encode({"id": number, "verb": verb, **fields})], descriptors)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(partial(self._settled, number))
        return answer

    def _settled(self, number: int, answer: asyncio.Future[Any]) -> None:
        self._answers.pop(number, None)
        if not answer.cancelled():
            # Else asyncio complains of an error that nobody has looked at.
            answer.exception()

    def error(self, what: str) -> SupervisorError:
        """Return what is to be raised of this process."""
        return self._failure(f"{self._who} {what}")

    def close(self, reason: str) -> None:
        """Close the connection and fail what waits for an answer; no event comes after this."""
        self._writer.close()
        self._socket.close()
        if self._reading is not asyncio.current_task():
            self._reading.cancel()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self.error(reason))
        self._answers.clear()

    async def wait_closed(self) -> None:
        """Return when it is closed, after `close`."""
        await asyncio.wait([self._reading])
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "has closed its control connection"
        try:
            while line := await reader.readline():
                self._take(decode(line))
        except (OSError, ValueError, TypeError, LookupError) as error:
            reason = f"cannot be understood: {one_line(str(error))}"
        self.close(reason)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._on_event(message)
            return
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(self._failure(one_line(str(message["error"]))))
        else:
            answer.set_result(message["result"])


async def _writable(connection: socket.socket) -> None:
    """Return when a socket takes more, or its peer is gone."""
    loop = asyncio.get_running_loop()
    # A descriptor of its own: asyncio has one look out for each, and the connection may be closed meanwhile.
    with connection.dup() as own:
        takes = asyncio.Event()
        loop.add_writer(own, takes.set)
        try:
            await takes.wait()
        finally:
            loop.remove_writer(own)
