"""Whoever else knocks: garbage, peers that never finish, other users; and the log of who asked for what."""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Served
from tests.harness.supervisor_process import PATIENCE
from tests.harness.unix_http import connected

NOBODY = 65534


def exchange(path: Path, data: bytes) -> bytes:
    """Send bytes as they are, say that there are no more, and return what comes back until the supervisor closes."""
    with connected(path) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := peer.recv(65536):
                answer += chunk
        return answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03\x01garbage\r\n\r\n",
        b"\n" * 1000,
        b"GET",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /instances HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
        b"\xff" * (10 << 20),
        os.urandom(10 << 20),
    ],
)
def test_garbage_harms_nobody(served: Served, http: httpx.Client, garbage: bytes) -> None:
    """The peer gets an error or is dropped; others are answered, and nothing was created."""
    answer = exchange(served.socket, garbage)
    assert answer == b"" or answer.split()[1] == b"400"
    assert len(answer) < 4096, "what is quoted of garbage would wait for a peer that is still sending"
    assert http.get("/instances").json() == []
    assert "Traceback" not in served.log.read_text()


def test_idle_and_half_requests_hold_nobody_up(served: Served, http: httpx.Client) -> None:
    """A hundred peers that never finish their request are only waited for by themselves."""
    with contextlib.ExitStack() as peers:
        for _ in range(100):
            peer = peers.enter_context(connected(served.socket))
            peer.sendall(b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: http.get("/health").status_code, range(32)))
    assert answers == [200] * 32


CHILD = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def ask(method, path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(sys.argv[1])
    peer.sendall(f"{method} {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
    head, _, body = b"".join(iter(lambda: peer.recv(65536), b"")).partition(b"\\r\\n\\r\\n")
    return int(head.split()[1]), json.loads(body)
def first_event():
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(sys.argv[1])
    peer.sendall(b"GET /events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    text = b""
    while b'"writable":' not in text:
        text += peer.recv(65536)
    return b'"writable":true' in text
print(json.dumps([os.getpid(), ask("GET", "/instances"), ask("POST", "/instances"), ask("DELETE", "/instances/a"),
    ask("PATCH", "/"), first_event(), ask("GET", "/instances/a/wait?state=Running&readiness=tcp:127.0.0.1:22")]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root, to become another user")
def test_another_user_may_look_but_not_change(served: Served) -> None:
    """Where the socket lets him in: the supervisor refuses, logs the refusal, and says so in the event stream."""
    opened = [
        path for path in (served.socket, *served.socket.parents) if path.is_relative_to("/tmp") and path != Path("/tmp")
    ]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in opened}
    try:
        for path, mode in modes.items():
            path.chmod(mode | (0o006 if path == served.socket else 0o005))
        child = subprocess.run(
            (sys.executable, "-I", "-c", CHILD, str(served.socket)),
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd="/",
        )
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    pid, listed, created, deleted, patched, writable, asked = json.loads(child.stdout)
    assert listed == [200, []]
    for status, error in (created, deleted, patched):
        assert (status, error["code"]) == (403, "forbidden")
        assert error["message"] == "uid 65534 may look but not change; ask the supervisor's owner (uid 0)"
    assert writable is False
    assert asked[0] == 403 and "may look, and have no port asked" in asked[1]["message"]
    log = served.log.read_text()
    assert f"POST /instances by uid {NOBODY}, pid {pid}: 403" in log
    assert f"DELETE /instances/a by uid {NOBODY}, pid {pid}: 403" in log


def test_every_change_is_logged_with_who_asked(served: Served, http: httpx.Client) -> None:
    """Also one that was refused for what it asked; looking is not logged."""
    http.post("/instances/logged-name/stop")
    http.get("/instances/looked-at")
    log = served.log.read_text()
    assert f"POST /instances/logged-name/stop by uid {os.geteuid()}, pid {os.getpid()}: 404" in log
    assert "looked-at" not in log


def test_only_owner_and_group_may_open_the_socket(served: Served) -> None:
    """aiohttp and asyncio would leave it to the umask."""
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o660
