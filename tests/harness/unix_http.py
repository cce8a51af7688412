"""Requests to whoever listens on a Unix socket, a VMM or a supervisor, without a client of either."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

TIMEOUT = 20.0
"""Seconds until an answer that does not come fails a test."""


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def __init__(self, path: Path, timeout: float = TIMEOUT) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connected(self._path, self.timeout)


def connected(path: Path, timeout: float | None = TIMEOUT) -> socket.socket:
    """Return a connection for bytes as they are."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(timeout)
    try:
        peer.connect(str(path))
    except OSError:
        peer.close()
        raise
    return peer


def request(path: Path, method: str, target: str, body: Any = None, timeout: float = TIMEOUT) -> tuple[int, Any]:
    """Make one request; returns the status and the value of the answer's body, None where it has none."""
    connection = UnixConnection(path, timeout)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()
