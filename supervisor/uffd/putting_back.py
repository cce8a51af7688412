"""What a page server has in the run directory, put back by the supervisor where somebody has removed it.

A page server outlives its supervisor, and what it has in memory nobody else has: above all which pages its guests gave
back. The supervisor makes the files anew, and the page server goes on in them.
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from supervisor.errors import PageServerError, SupervisorError
from supervisor.system.control_connection import Connection
from supervisor.system.control_lines import LINE_BYTES, decode, encode
from supervisor.system.unix_sockets import bound, remove_file
from supervisor.uffd import kernel
from supervisor.uffd.control import MapFile, decode_answer
from supervisor.uffd.hand_over import Given
from supervisor.uffd.inheritance import WAY_BACK
from supervisor.uffd.map_files import is_in_place, lock_of, new_map_file
from supervisor.uffd.program import CONTROL_MODE


async def put_control_back(connection: Connection, control: Path) -> None:
    """Have a page server listen at its path again; raises OSError and PageServerError."""
    with _new_control(control) as given:
        await hand(connection, "listen", given)


async def put_maps_back(connection: Connection, page_maps: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Have forks' page maps at their paths again; returns the forks whose were not, and what failed, in words.

    Raises PageServerError where the page server does not say which files it has.
    """
    made, failed = [], []
    for found in await _map_files(connection):
        path = page_maps.get(found.fork_id)
        if path is None or is_in_place(path, (found.device, found.inode), found.size):
            continue
        try:
            with new_map_file(path) as new_map, lock_of(path.parent) as lock:
                given = {"new_map": new_map.descriptor, "lock": lock}
                await hand(connection, "move_map", given, fork_id=found.fork_id)
                new_map.place()
        except (OSError, SupervisorError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            failed.append(f"the page map of fork {found.fork_id}: {reason}")
        else:
            made.append(found.fork_id)
    return made, failed


async def hand(connection: Connection, verb: str, given: Given, **fields: Any) -> Any:
    """Return the result of a request that comes with descriptors, which go by their names."""
    return await connection.hand(verb, tuple(given.values()), given=tuple(given), **fields)


def listen_again(pidfd: int, control: Path, seconds: float) -> None:
    """Have a page server listen at its path that no connection leads to. Blocks.

    By its standard output: `inheritance.py`. Raises OSError, as where it may not be traced, and ValueError for what is
    no answer.
    """
    with socket.socket(fileno=kernel.pidfd_getfd(pidfd, WAY_BACK)) as way_back, _new_control(control) as given:
        until, number, received = time.monotonic() + seconds, os.urandom(8).hex(), b""
        way_back.settimeout(seconds)
        request = encode({"id": number, "verb": "listen", "given": tuple(given)})
        socket.send_fds(way_back, [request], tuple(given.values()))
        # What an earlier supervisor was answered, and did not read, comes first.
        while len(received) < LINE_BYTES and (left := until - time.monotonic()) > 0:
            way_back.settimeout(left)
            piece = way_back.recv(LINE_BYTES)
            *lines, received = (received + piece).split(b"\n")
            if not piece or any(decode(line).get("id") == number for line in lines):
                return
        raise TimeoutError(errno.ETIMEDOUT, "it has not answered")


async def _map_files(connection: Connection) -> list[MapFile]:
    told = await connection.request("maps")
    try:
        return [decode_answer(MapFile, one) for one in told]
    except (ValueError, TypeError) as error:
        raise PageServerError(f"the answer about page maps cannot be understood: {error}") from error


@contextlib.contextmanager
def _new_control(control: Path) -> Iterator[Given]:
    """Give a socket that is bound at the path, which goes again where the body raises; raises OSError."""
    with bound(control, CONTROL_MODE) as listener:
        try:
            with lock_of(control.parent) as lock:
                yield {"control": listener.fileno(), "lock": lock}
        except BaseException:
            remove_file(control)
            raise
