"""Who asks: the credentials of a connection's peer, what it may do, and the log of what it did."""

import logging
import os
import pwd
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from supervisor.concurrency.progress import asked_by
from supervisor.errors import ForbiddenError
from supervisor.system.unix_sockets import peer_credentials

LOGGER: Final = logging.getLogger("supervisor.api")

_LOOKING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a connection, as the kernel knows it."""

    pid: int
    uid: int

    @property
    def user(self) -> str:
        """The user's name, or the uid where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"

    @property
    def writable(self) -> bool:
        """Whether it may change anything: root and the supervisor's own user may."""
        return is_owner(self.uid)


def is_owner(uid: int) -> bool:
    """Whether it is root's or the supervisor's own user's."""
    return uid in (0, os.geteuid())


def peer_of(request: web.Request) -> Peer:
    """Return the request's peer; raises ForbiddenError where the connection is gone, and its credentials with it."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None:
        raise ForbiddenError(
            "the peer is gone before its credentials could be read; ask again, and stay for the answer"
        )
    credentials = peer_credentials(connection)
    return Peer(credentials.pid, credentials.uid)


def check_may_ask(request: web.Request) -> None:
    """Raise ForbiddenError for a peer that may only look: what it asks for has a port spoken to, or takes long."""
    peer = peer_of(request)
    if not peer.writable:
        raise ForbiddenError(
            f"uid {peer.uid} may look, and have no port asked nor pattern searched; wait for console: and plain words, "
            f"or ask the supervisor's owner (uid {os.geteuid()})"
        )


def begin_typing(request: web.Request) -> None:
    """Note who types into a console, in the log too; raises ForbiddenError for a peer that may only look."""
    peer = peer_of(request)
    if not peer.writable:
        raise ForbiddenError(
            f"uid {peer.uid} may look but not type; watch it, or ask the supervisor's owner (uid {os.geteuid()})"
        )
    asked_by.set(f"{peer.user} (pid {peer.pid})")
    LOGGER.info("GET %s, to type, by uid %d, pid %d", request.rel_url.raw_path, peer.uid, peer.pid)


@web.middleware
async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let everybody look, and only some change."""
    if request.method not in _LOOKING:
        peer = peer_of(request)
        if not peer.writable:
            raise ForbiddenError(
                f"uid {peer.uid} may look but not change; ask the supervisor's owner (uid {os.geteuid()})"
            )
        asked_by.set(f"{peer.user} (pid {peer.pid})")
    return await handler(request)


@web.middleware
async def log_changes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log every request to change something with who asked and how it ended, refused ones too."""
    if request.method in _LOOKING:
        return await handler(request)
    try:
        peer = peer_of(request)
        who = f"uid {peer.uid}, pid {peer.pid}"
    except ForbiddenError:
        who = "a peer that is gone"
    response = await handler(request)
    level = logging.INFO if response.status < 400 else logging.WARNING
    # Who may not change anything can ask for as many paths as he likes.
    counted_as = {"counted_as": f"{who}: {response.status}"} if response.status == HTTPStatus.FORBIDDEN else None
    LOGGER.log(
        level, "%s %s by %s: %d", request.method, request.rel_url.raw_path, who, response.status, extra=counted_as
    )
    return response
