"""A fork before its handshake: its VMM, and nobody else, connects and hands over its userfaultfd, or is late.

The supervisor has bound the socket and removes its file: it may lie where a page server has no business.
"""

import socket
from collections.abc import Callable
from functools import partial

from supervisor.errors import PageServerError
from supervisor.system.unix_sockets import peer_credentials
from supervisor.uffd.control import Refused
from supervisor.uffd.handshake import Handshake, Reception
from supervisor.uffd.terms import Owner, Terms

TOLD_PEERS = 8
"""Processes at most that are told of: each is a line in the log and an event, and may come again and again."""


class Listening:
    """Waits at a fork's socket; every callback of it is called by the loop and none blocks."""

    def __init__(
        self,
        owner: Owner,
        terms: Terms,
        listener: socket.socket,
        on_handshake: Callable[[Handshake, socket.socket], None],
        on_failure: Callable[[str], None],
    ) -> None:
        """Call one of both once, unless it is closed before.

        With the handshake come its userfaultfd and its connection, which are the callee's; or why there will be none.
        """
        self._owner = owner
        self._terms = terms
        self._listener = listener
        self._on_handshake = on_handshake
        self._on_failure = on_failure
        self._reception: Reception | None = None
        self._refused: set[int] = set()
        owner.loop.watch(listener.fileno(), self._on_connection)
        self._timer = owner.loop.call_later(owner.policy.handshake_seconds, self._on_timeout)

    def close(self) -> None:
        """Listen no more, and hang up on the VMM."""
        self._stop_listening()
        if self._reception is not None:
            self._owner.loop.unwatch(self._reception.connection.fileno())
            self._reception.close()

    def _stop_listening(self) -> None:
        self._timer.cancel()
        self._owner.loop.unwatch(self._listener.fileno())
        self._listener.close()

    def _on_connection(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._on_failure(f"no connection can be accepted: {error.strerror}")
            return
        connection.setblocking(False)
        pid, vmm_pid = peer_credentials(connection).pid, self._terms.vmm_pid
        if pid != vmm_pid or self._reception is not None:
            connection.close()
            self._refuse_peer(pid)
            return
        reception = Reception(connection, self._owner.image.size, self._owner.page_size)
        try:
            self._owner.loop.watch(connection.fileno(), partial(self._on_message, reception))
        except OSError as error:
            connection.close()
            self._on_failure(f"its connection cannot be watched: {error.strerror}")
            return
        self._reception = reception

    def _on_message(self, reception: Reception) -> None:
        try:
            accepted = reception.receive()
        except PageServerError as error:
            self._refuse(error.message)
            self._on_failure(f"the handshake of its VMM was refused: {error.message}")
            return
        if accepted is not None:
            self._owner.loop.unwatch(reception.connection.fileno())
            self._stop_listening()
            self._on_handshake(accepted, reception.connection)

    def _on_timeout(self) -> None:
        seconds, pid = self._owner.policy.handshake_seconds, self._terms.vmm_pid
        self._on_failure(f"its VMM, pid {pid}, made no handshake within {seconds:g} s")

    def _refuse_peer(self, pid: int) -> None:
        """Tell of a process that is hung up on, once, and of so many of them."""
        if pid in self._refused or len(self._refused) >= TOLD_PEERS:
            return
        self._refused.add(pid)
        vmm_pid = self._terms.vmm_pid
        why = "it has a connection already" if pid == vmm_pid else f"only pid {vmm_pid} may"
        self._refuse(f"pid {pid} connected, and {why}")

    def _refuse(self, reason: str) -> None:
        self._owner.announce(Refused(self._terms.fork_id, reason))
