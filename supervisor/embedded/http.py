"""The HTTP/1.1 of the API socket: requests with a Content-Length on connections that stay open.

Where http.server would do, it would import email, html and more into every VMM.
"""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from supervisor.embedded.refusals import MalformedError

MAX_HEAD_BYTES: Final = 8192
MAX_BODY_BYTES: Final = 51200
"""Firecracker's HTTP_MAX_PAYLOAD_SIZE."""
MAX_CONNECTIONS: Final = 10
"""Firecracker's (micro_http); a further one is told so and closed."""
_REASONS: Final = {200: "OK", 204: "No Content", 400: "Bad Request", 503: "Service Unavailable"}


class Request(NamedTuple):
    """One request; `path` begins with a slash."""

    method: str
    path: str
    body: bytes
    keep_alive: bool = True


class Response(NamedTuple):
    """One response; `last` ends the process after it has been sent."""

    status: int
    body: Any = None
    last: bool = False


def fault(message: str, status: int = 400, last: bool = False) -> Response:
    """Return the response that refuses a request."""
    return Response(status, {"fault_message": message}, last)


class Head(NamedTuple):
    """A request without its body."""

    method: str
    path: str
    length: int
    keep_alive: bool
    expects_continue: bool


def parse_head(head: bytes) -> Head:
    """Return what the bytes before the empty line say; raises MalformedError. Pure."""
    try:
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
    except ValueError:
        raise MalformedError("Invalid request.") from None
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise MalformedError("Invalid HTTP Version: Unsupported HTTP version.")
    path = "/" + target.removeprefix("http://").partition("/")[2]
    if not method.isalpha() or not (target.startswith("/") or target.startswith("http://")):
        raise MalformedError("Invalid request.")
    headers = _headers(lines)
    if "transfer-encoding" in headers:
        raise MalformedError("Invalid header. Transfer-Encoding is not supported; send a Content-Length.")
    length = headers.get("content-length", "0")
    if not length.isdigit() or len(length) > 18:
        raise MalformedError(f"Invalid header. Reason: Invalid value. Key:Content-Length; Value: {length[:32]}")
    if int(length) > MAX_BODY_BYTES:
        raise MalformedError(
            f"Request payload with size {length} is larger than the limit of {MAX_BODY_BYTES} allowed by server."
        )
    keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Head(method, path, int(length), keep_alive, headers.get("expect", "").lower() == "100-continue")


def serve(listener: socket.socket, handle: Callable[[Request], Response], end: Callable[[], None]) -> None:
    """Answer connections until the process ends, each in a thread, so that a slow request holds up no other."""
    free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def converse(peer: socket.socket) -> None:
        try:
            with peer:
                _converse(peer, handle, end)
        except OSError:
            # The peer has gone.
            return
        finally:
            free.release()

    while True:
        peer, _ = listener.accept()
        if free.acquire(blocking=False):
            threading.Thread(target=converse, args=(peer,), name="api", daemon=True).start()
        else:
            with peer:
                peer.settimeout(0)
                _try_send(peer, _encode(fault("Too many open connections.", 503), keep_alive=False))


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name.strip() != name or name in headers:
            raise MalformedError(f"Invalid header. Reason: Header is incorrectly formatted. Key: {line[:64]}")
        headers[name] = value.strip()
    return headers


def _converse(peer: socket.socket, handle: Callable[[Request], Response], end: Callable[[], None]) -> None:
    received = bytearray()
    while True:
        try:
            request = _receive(peer, received)
        except MalformedError as error:
            peer.sendall(_encode(fault(str(error)), keep_alive=False))
            return
        if request is None:
            return
        response = handle(request)
        try:
            peer.sendall(_encode(response, request.keep_alive))
        finally:
            if response.last:
                end()
        if not request.keep_alive:
            return


def _receive(peer: socket.socket, received: bytearray) -> Request | None:
    """Return the next request, None at the end of the connection; `received` keeps what has come after it."""
    while (end := received.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)) < 0:
        if len(received) >= MAX_HEAD_BYTES:
            raise MalformedError(f"Invalid request: its head is larger than {MAX_HEAD_BYTES} bytes.")
        if not _receive_more(peer, received):
            return None
    head = parse_head(bytes(received[:end]))
    del received[: end + 4]
    if head.expects_continue and len(received) < head.length:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(received) < head.length:
        if not _receive_more(peer, received):
            return None
    body = bytes(received[: head.length])
    del received[: head.length]
    return Request(head.method, head.path, body, head.keep_alive)


def _receive_more(peer: socket.socket, received: bytearray) -> bool:
    piece = peer.recv(MAX_HEAD_BYTES)
    received += piece
    return bool(piece)


def _encode(response: Response, keep_alive: bool) -> bytes:
    body = b"" if response.body is None else json.dumps(response.body).encode()
    lines = [
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}",
        "Server: forktui embedded VMM API",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _try_send(peer: socket.socket, data: bytes) -> None:
    try:
        peer.send(data)
    except OSError:
        return
