"""The supervisor's connection to a page server: requests, their answers, and events."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from supervisor.errors import PageServerError
from supervisor.system.control_lines import LINE_BYTES, decode, encode
from supervisor.system.unix_sockets import peer_credentials
from supervisor.uffd.control import PageServerEvent, decode_event
from supervisor.uffd.takeover import take_userfaultfd

ANSWER_SECONDS: Final = 10.0


class Streams(NamedTuple):
    """Both directions of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


async def open_streams(who: str, control: Path, pid: int) -> Streams:
    """Connect to the page server `pid`; PageServerError, of `who`, when it is not who listens at `control`."""
    try:
        streams = Streams(*await asyncio.open_unix_connection(control, limit=2 * LINE_BYTES))
    except OSError as error:
        raise PageServerError(f"{who} does not listen at {control}: {error.strerror}") from error
    listener = peer_credentials(streams.writer.get_extra_info("socket")).pid
    if listener != pid:
        streams.writer.close()
        raise PageServerError(f"{who} is not who listens at {control}: that is pid {listener}")
    return streams


class Connection:
    """A connection to a page server, which its errors call `who`; each event is given to `on_event`."""

    def __init__(self, who: str, streams: Streams, on_event: Callable[[PageServerEvent], None]) -> None:
        self._who = who
        self._writer = streams.writer
        self._on_event = on_event
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read(streams.reader), name=who)

    async def request(self, verb: str, seconds: float | None = ANSWER_SECONDS, **fields: Any) -> Any:
        """Return the result of a request; PageServerError where that is an error, or when none came in time."""
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

    def error(self, what: str) -> PageServerError:
        """Return what is to be raised of this page server."""
        return PageServerError(f"{self._who} {what}")

    def close(self, reason: str) -> None:
        """Close the connection and fail what waits for an answer; no event comes after this."""
        self._writer.close()
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
        except (OSError, ValueError, TypeError) as error:
            reason = f"cannot be understood: {error}"
        self.close(reason)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._on_event(decode_event(message))
            return
        answer = self._answers.pop(message["id"], None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(PageServerError(message["error"]))
        else:
            answer.set_result(message["result"])


def hand_over(control: Path, vmm_pid: int, fields: dict[str, Any]) -> None:
    """Have a page server adopt the userfaultfd of a VMM, on a connection of its own. Blocks.

    PageServerError when the VMM has gone, or the page server refuses or gives no answer.
    """
    uffd = take_userfaultfd(vmm_pid)
    try:
        answer = _answer_to(control, encode({"id": 0, "verb": "adopt", "vmm_pid": vmm_pid, **fields}), uffd)
    except (OSError, ValueError) as error:
        raise PageServerError(f"the page server at {control} cannot be given a fork: {error}") from error
    finally:
        os.close(uffd)
    if "error" in answer:
        raise PageServerError(answer["error"])


def _answer_to(control: Path, request: bytes, descriptor: int) -> dict[str, Any]:
    """Return the answer to a request that comes with a descriptor; raises OSError, and ValueError where it is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(os.fspath(control))
        socket.send_fds(connection, [request], [descriptor])
        with connection.makefile("rb") as answers:
            while line := answers.readline(LINE_BYTES):
                answer = decode(line)
                if "event" not in answer:
                    return answer
    raise PageServerError(f"the page server at {control} gave no answer")
