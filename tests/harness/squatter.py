"""Another user who listens where a client looks for its supervisor."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.harness.unix_http import connected

OTHER = 12345

_LISTENS = """
import json, os, socket, sys
uid, path, link = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([]); os.setgid(uid); os.setuid(uid); os.umask(0)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path); listener.listen()
if link:
    os.symlink(path, link)
print(flush=True)
said = b""
while True:
    peer, _ = listener.accept()
    chunk = peer.recv(65536)
    if chunk == b"end":
        break
    said += chunk
    if chunk:
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
    peer.close()
print(json.dumps(said.decode()), flush=True)
"""


class Squatter:
    """What it was told, once it has ended."""

    said = ""


@contextlib.contextmanager
def squatter(path: Path, *, link: Path | None = None, uid: int = OTHER) -> Iterator[Squatter]:
    """Have a user listen at a path, where he may make a socket, and grant every request that is sent there."""
    command = (sys.executable, "-I", "-c", _LISTENS, str(uid), str(path), str(link or ""))
    squatting = Squatter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"\n"
            yield squatting
            with connected(path) as peer:
                peer.sendall(b"end")
            squatting.said = json.loads(process.stdout.readline())
        finally:
            process.kill()
