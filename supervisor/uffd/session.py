"""One fork of a page server: its terms, its VMM, its page map, who waits for it, and its end."""

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Self, TypeVar

from supervisor.errors import PageServerError
from supervisor.uffd import handshake
from supervisor.uffd.control import Attached, Gone, MapFile
from supervisor.uffd.handshake import Handshake
from supervisor.uffd.listening import Listening
from supervisor.uffd.page_map import PageMap
from supervisor.uffd.population import Tell
from supervisor.uffd.serving import NOTHING_PREFETCHED, Serving
from supervisor.uffd.takeover import reopen
from supervisor.uffd.terms import LeftFork, NewFork, Owner, Terms

Answer = TypeVar("Answer")


class _Waiting(list[Callable[[Answer], None]]):
    """Who waits for an answer."""

    def tell(self, answer: Answer) -> None:
        """Answer all of them."""
        told = self.copy()
        self.clear()
        for tell in told:
            tell(answer)


class Session:
    """Listens for a fork's VMM, then serves it, until the VMM exits, something fails, or it is ended.

    Made by `attach` or `adopt`.
    """

    def __init__(self, owner: Owner, terms: Terms, vmm: int, pages: PageMap, source: socket.socket | Handshake) -> None:
        """`vmm` is a pidfd; the userfaultfd comes through a listening socket, or is there with its mappings.

        Raises OSError where a descriptor cannot be watched; all of them are the caller's then.
        """
        self.terms = terms
        self.ended: str | None = None
        """Why the fork is not served any more."""
        self._owner = owner
        self._vmm = vmm
        self._map = pages
        self._connection: socket.socket | None = None
        """That of the handshake: the VMM keeps its end, and has nothing more to say."""
        self._attached: Attached | None = None
        self._for_attached = _Waiting[Attached | str]()
        self._for_population = _Waiting[str | None]()
        # First: of a stage that was made nothing can be given up but by ending it.
        owner.loop.watch(vmm, lambda: self.end(f"its VMM, pid {terms.vmm_pid}, has exited"))
        self._stage: Listening | Serving
        try:
            if isinstance(source, Handshake):
                self._stage = Serving(owner, terms, source, pages, self.end)
            else:
                self._stage = Listening(owner, terms, source, self._on_handshake, self.end)
        except BaseException:
            owner.loop.unwatch(vmm)
            raise
        if isinstance(self._stage, Serving):
            self._stage.wake()
            self._attached = NOTHING_PREFETCHED

    @classmethod
    def attach(cls, owner: Owner, terms: Terms, given: NewFork) -> Self:
        """Wait for the VMM of a new fork; PageServerError when its socket or page map cannot be had."""
        with contextlib.ExitStack() as undo:
            vmm = os.dup(given.vmm)
            undo.callback(os.close, vmm)
            page_count = owner.image.size // owner.page_size
            try:
                pages = PageMap.create(given.new_map, terms.page_map, owner.page_size, page_count)
            except OSError as error:
                raise PageServerError(f"page map {terms.page_map} cannot be made: {error.strerror}") from error
            undo.callback(pages.close)
            listener = handshake.listener_of(given.listener)
            undo.callback(listener.close)
            session = cls(owner, terms, vmm, pages, listener)
            undo.pop_all()
        return session

    @classmethod
    def adopt(cls, owner: Owner, terms: Terms, given: LeftFork) -> tuple[Self, bool]:
        """Serve what a page server that died served; PageServerError when its page map cannot be had.

        Also returns whether the page map was made anew.
        """
        with contextlib.ExitStack() as undo:
            vmm = os.dup(given.vmm)
            undo.callback(os.close, vmm)
            pages, mappings, anew = reopen(terms, given, owner.page_size, owner.image.size // owner.page_size)
            undo.callback(pages.close)
            own = os.dup(given.uffd)
            undo.callback(os.close, own)
            session = cls(owner, terms, vmm, pages, Handshake(own, mappings))
            undo.pop_all()
        return session, anew

    @property
    def recording(self) -> bool:
        """Whether its faults are being recorded."""
        return isinstance(self._stage, Serving) and self._stage.recording

    def when_served(self, tell: Callable[[Attached | str], None]) -> None:
        """Call once, with what it was given when it is ready to run, or with the reason why it never will be."""
        answer = self._attached if self.ended is None else self.ended
        if answer is None:
            self._for_attached.append(tell)
        else:
            tell(answer)

    def populate(self, tell: Tell) -> None:
        """Fill every absent page, and have no fault reported from then on; it is served until it is released."""
        if self.ended is not None or not isinstance(self._stage, Serving):
            tell(self.ended or "its VMM has made no handshake")
            return
        self._for_population.append(tell)
        self._stage.populate(self._for_population.tell)

    def stop_populating(self) -> None:
        """Fill no more pages that nobody asks for; who waits for that is told so."""
        if isinstance(self._stage, Serving):
            self._stage.stop_populating()
        self._for_population.tell("it was to be populated no further")

    @property
    def map_file(self) -> MapFile:
        """Which file its page map is in."""
        return MapFile(self.terms.fork_id, *self._map.device_and_inode, self._map.size)

    def move_map(self, file: int) -> None:
        """Have its page map in this file, which is empty, from now on; raises OSError."""
        if self.ended is None:
            self._map.move_to(file)

    def end(self, reason: str, *, announce: bool = True) -> None:
        """Stop serving: keep a recording that was not cut off, and close everything."""
        if self.ended is not None:
            return
        self.ended = reason
        self._stage.close()
        if self._connection is not None:
            self._connection.close()
        self._owner.loop.unwatch(self._vmm)
        os.close(self._vmm)
        self._map.close()
        if announce:
            self._owner.announce(Gone(self.terms.fork_id, reason))
        self._for_attached.tell(reason)
        self._for_population.tell(reason)

    def _on_handshake(self, accepted: Handshake, connection: socket.socket) -> None:
        self._map.note_mappings(accepted.mappings)
        self._connection = connection
        try:
            self._stage = serving = Serving(self._owner, self.terms, accepted, self._map, self.end)
        except OSError as error:
            os.close(accepted.uffd)
            self.end(f"its userfaultfd cannot be watched: {error.strerror}")
            return
        serving.prefetch(self._set_attached)

    def _set_attached(self, attached: Attached) -> None:
        self._attached = attached
        self._for_attached.tell(attached)
