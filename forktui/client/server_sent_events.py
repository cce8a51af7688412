"""The parser of server-sent events (WHATWG HTML, section 9.2.6). Pure: bytes in, events out."""

import codecs
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    """One dispatched event: `id` is that of the last event that carried one."""

    id: str
    type: str
    data: str


class Parser:
    """Takes a stream in pieces of any size and gives the events that are complete, of at most `limit` characters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        """Of the event that is not complete yet."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []
        self._after_return = False
        self._id = ""
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that this chunk completes, in order; OverflowError where one has no end in sight."""
        text = self._decoder.decode(chunk)
        if not text:
            return []
        if self._after_return and text[0] == "\n":
            text = text[1:]
        self._after_return = chunk.endswith(b"\r")
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        events = []
        for line in lines:
            self._count(line)
            whole = "".join((*self._pieces, line))
            self._pieces.clear()
            if event := self._take(whole):
                events.append(event)
        if rest:
            self._count(rest)
            self._pieces.append(rest)
        return events

    def _count(self, text: str) -> None:
        self._size += len(text)
        if self._size > self._limit:
            raise OverflowError

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._type = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        self._size = 0
        kind, self._type = self._type, ""
        data, self._data = self._data, []
        return ServerSentEvent(self._id, kind or "message", "\n".join(data)) if data else None
