"""One fork: from the socket that its VMM connects to, through handshake, prefetch and recording, to its end."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence

from supervisor.errors import PageServerError
from supervisor.system.unix_sockets import peer_credentials
from supervisor.uffd import handshake, kernel, page_map
from supervisor.uffd.control import Attached, Failing, Gone, Policy, RecordingDropped, Refused
from supervisor.uffd.handshake import Handshake, Mapping, Reception
from supervisor.uffd.hot_pages import Recording
from supervisor.uffd.loop import Loop, Timer
from supervisor.uffd.memory_image import GRANULE_BYTES, MemoryImage
from supervisor.uffd.page_map import PageMap
from supervisor.uffd.pager import GONE_ERRORS, Pager
from supervisor.uffd.population import Population, Tell
from supervisor.uffd.prefetching import Prefetching
from supervisor.uffd.sampling import HeldBack, Plan
from supervisor.uffd.takeover import note_lost_removals
from supervisor.uffd.terms import Owner, Terms

_RETRY_SECONDS = 0.001
_RETRY_LIMIT_SECONDS = 0.1


class Session:
    """Serves one fork; every callback of it is called by the loop and none blocks."""

    def __init__(
        self,
        loop: Loop,
        owner: Owner,
        terms: Terms,
        image: MemoryImage,
        page_size: int,
        policy: Policy,
        uffd: int | None = None,
    ) -> None:
        """Listen for the fork's VMM; or take over, with `uffd`, which is this session's then, what another served.

        PageServerError when its process, its socket or its page map cannot be had; `uffd` stays the caller's then.
        """
        self.terms = terms
        self.ended: str | None = None
        """Why the fork is not served any more."""
        self._loop = loop
        self._owner = owner
        self._image = image
        self._page_size = page_size
        self._policy = policy
        self._reception: Reception | None = None
        self._handshake: Handshake | None = None
        self._pager: Pager | None = None
        self._recording: Recording | None = None
        self._retry_seconds = _RETRY_SECONDS
        self._retrying = False
        self._failures: set[int | None] = set()
        self._attached: Attached | None = None
        self._waiting: list[Callable[[Attached | str], None]] = []
        self._population: Population | None = None
        self._prefetching: Prefetching | None = None
        self._held_back: HeldBack | None = None
        self._listener: socket.socket | None = None
        self._handshake_timer: Timer | None = None
        self._pidfd = self._open_vmm()
        try:
            if uffd is None:
                self._listener, self._map = self._open()
            else:
                self._map, taken = self._reopen(uffd)
        except PageServerError:
            os.close(self._pidfd)
            raise
        loop.watch(self._pidfd, lambda: self.end(f"its VMM, pid {terms.vmm_pid}, has exited"))
        if self._listener is not None:
            loop.watch(self._listener.fileno(), self._on_connection)
            self._handshake_timer = loop.call_later(policy.handshake_seconds, self._handshake_late)
        else:
            self._resume(taken)

    def _open_vmm(self) -> int:
        try:
            return os.pidfd_open(self.terms.vmm_pid)
        except OSError as error:
            reason = f"no VMM has pid {self.terms.vmm_pid}: {error.strerror}"
            raise PageServerError(f"fork {self.terms.fork_id}: {reason}") from error

    def _open(self) -> tuple[socket.socket, PageMap]:
        """The socket for the VMM and the page map; or none of them."""
        terms = self.terms
        try:
            pages = PageMap.create(terms.page_map, self._page_size, self._image.size // self._page_size)
        except OSError as error:
            raise PageServerError(f"page map {terms.page_map} cannot be made: {error.strerror}") from error
        try:
            return handshake.listen(terms.listen), pages
        except PageServerError:
            pages.close()
            terms.page_map.unlink(missing_ok=True)
            raise

    def _reopen(self, uffd: int) -> tuple[PageMap, Handshake]:
        """The page map that a dead page server left, made true again, and what that one was told in its handshake."""
        pages = PageMap.reopen(self.terms.page_map, self._page_size, self._image.size // self._page_size)
        mappings = tuple(Mapping(*mapping) for mapping in pages.mappings())
        try:
            if not mappings:
                raise PageServerError(f"fork {self.terms.fork_id}: its handshake was never made")
            removed = note_lost_removals(self.terms.vmm_pid, mappings, pages, self._page_size)
            # Not from what it was: the dead one counted its answers after it had noted them.
            states = pages.states(0, pages.page_count)
            absent = states.count(page_map.ABSENT) + states.count(page_map.REMOVED)
            pages.counters[page_map.PRESENT_PAGES] = pages.page_count - absent
            pages.counters[page_map.REMOVED_PAGES] += removed
            # What the dead one had read is raised again, and is young then.
            pages.counters[page_map.OLDEST_UNANSWERED_NS] = 0
        except (OSError, PageServerError) as error:
            pages.close()
            if isinstance(error, PageServerError):
                raise
            reason = f"the memory of pid {self.terms.vmm_pid} cannot be looked at: {error.strerror}"
            raise PageServerError(f"fork {self.terms.fork_id}: {reason}") from error
        return pages, Handshake(uffd, mappings)

    @property
    def recording(self) -> bool:
        """Whether its faults are being recorded."""
        return self._recording is not None

    def when_served(self, tell: Callable[[Attached | str], None]) -> None:
        """Call once, with what it was given when it is ready to run, or with the reason why it never will be."""
        answer = self._attached if self.ended is None else self.ended
        if answer is None:
            self._waiting.append(tell)
        else:
            tell(answer)

    def end(self, reason: str, *, announce: bool = True) -> None:
        """Stop serving: keep a recording that was not cut off, close and remove everything but the page map's file."""
        if self.ended is not None:
            return
        self.ended = reason
        self._end_recording()
        if self._map.counters[page_map.FAULTS]:
            # Else it may never have run: it was undone after its prefetch.
            self._judge_sample()
        if self._prefetching is not None:
            self._prefetching.stop()
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        self._close_listener()
        if self._reception is not None:
            self._loop.unwatch(self._reception.connection.fileno())
            self._reception.close()
        if self._handshake is not None:
            self._loop.unwatch(self._handshake.uffd)
            os.close(self._handshake.uffd)
        self._loop.unwatch(self._pidfd)
        os.close(self._pidfd)
        self._pager = None
        self._map.close()
        if announce:
            self._owner.announce(Gone(self.terms.fork_id, reason))
        self._tell_waiting(reason)
        if self._population is not None:
            self._population.end(reason)

    def _tell_waiting(self, answer: Attached | str) -> None:
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell(answer)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self.terms.listen.unlink(missing_ok=True)

    # The handshake

    def _on_connection(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self.end(f"no connection can be accepted: {error.strerror}")
            return
        connection.setblocking(False)
        pid = peer_credentials(connection).pid
        if pid != self.terms.vmm_pid or self._reception is not None:
            connection.close()
            why = "it has a connection already" if pid == self.terms.vmm_pid else f"only pid {self.terms.vmm_pid} may"
            self._owner.announce(Refused(self.terms.fork_id, f"pid {pid} connected, and {why}"))
            return
        self._reception = Reception(connection, self._image.size, self._page_size)
        self._loop.watch(connection.fileno(), self._on_message)

    def _on_message(self) -> None:
        assert self._reception is not None
        try:
            accepted = self._reception.receive()
        except PageServerError as error:
            self._owner.announce(Refused(self.terms.fork_id, error.message))
            self.end(f"the handshake of its VMM was refused: {error.message}")
            return
        if accepted is not None:
            # The connection stays open and unread: the VMM keeps its end, and has nothing more to say.
            self._loop.unwatch(self._reception.connection.fileno())
            self._begin(accepted)

    def _handshake_late(self) -> None:
        seconds, pid = self._policy.handshake_seconds, self.terms.vmm_pid
        self.end(f"its VMM, pid {pid}, made no handshake within {seconds:g} s")

    def _begin(self, accepted: Handshake) -> None:
        self._map.note_mappings(accepted.mappings)
        if self._handshake_timer is not None:
            self._handshake_timer.cancel()
        self._close_listener()
        self._serve(accepted)
        self._begin_prefetch(accepted.mappings)

    def _resume(self, taken: Handshake) -> None:
        """Serve on; what the dead page server had read and not answered is raised again (UFFDIO_WAKE(2const))."""
        self._serve(taken)
        self._set_attached(Attached(0, 0, 0.0))
        for mapping in taken.mappings:
            with contextlib.suppress(OSError):
                kernel.wake(taken.uffd, mapping.base, mapping.size)

    def _serve(self, accepted: Handshake) -> None:
        self._handshake = accepted
        policy = self._policy
        self._pager = Pager(accepted.uffd, accepted.mappings, self._image, self._map, self._page_size)
        if self.terms.record:
            longest_ns, quiet_ns = int(policy.record_seconds * 1e9), int(policy.record_quiet_seconds * 1e9)
            self._recording = Recording(longest_ns, quiet_ns, policy.record_pages)
        else:
            self._fault_around(self._pager)
        self._loop.watch(accepted.uffd, self._on_faults)

    # Faults

    def _fault_around(self, pager: Pager) -> None:
        """Have faults answered by the policy, whose pages are of 4 KiB whatever the image's are."""
        pages = self._policy.fault_around_pages * GRANULE_BYTES // self._page_size or 1
        pager.fault_around(pages, adaptive=self._policy.fault_around == "adaptive")

    def _on_faults(self) -> None:
        assert self._pager is not None
        try:
            pages = self._pager.serve()
        except OSError as error:
            self.end(_reason(error))
            return
        if pages and self._recording is not None:
            self._record(self._recording, pages)
        if self._held_back is not None:
            self._held_back.ask(pages)
        if self._pager.deferred or self._failures:
            self._see_to_deferred()

    def _see_to_deferred(self) -> None:
        assert self._pager is not None
        failure, self._pager.failure = self._pager.failure, None
        if failure is not None and failure.errno not in self._failures:
            self._failures.add(failure.errno)
            self._owner.announce(Failing(self.terms.fork_id, f"a page cannot be provided: {self._why(failure)}"))
        if not self._pager.deferred:
            self._retry_seconds = _RETRY_SECONDS
            self._failures.clear()
        elif not self._retrying:
            # No event of the userfaultfd announces that an answer would succeed now: only time does.
            self._retrying = True
            self._loop.call_later(self._retry_seconds, self._retry)
            self._retry_seconds = min(2 * self._retry_seconds, _RETRY_LIMIT_SECONDS)

    def _why(self, failure: OSError) -> str:
        if failure.errno == errno.EFAULT:
            try:
                self._image.verify()
            except PageServerError as error:
                return error.message
        return failure.strerror or str(failure)

    def _retry(self) -> None:
        self._retrying = False
        if self._pager is None:
            return
        try:
            self._pager.retry()
        except OSError as error:
            self.end(_reason(error))
            return
        self._see_to_deferred()

    # Recording

    def _record(self, recording: Recording, pages: list[int]) -> None:
        first = not recording.touched
        recording.touch(pages, time.monotonic_ns())
        if first or recording.full:
            self._check_recording()

    def _check_recording(self) -> None:
        ends_ns = None if self._recording is None else self._recording.ends_at_ns()
        if ends_ns is None:
            return
        if ends_ns <= time.monotonic_ns():
            self._end_recording()
        else:
            self._loop.call_at(ends_ns, self._check_recording)

    def _end_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is None:
            return
        if self._pager is not None:
            self._fault_around(self._pager)
        if recording.touched and recording.cut_off(time.monotonic_ns()):
            self._owner.announce(RecordingDropped(self.terms.fork_id, len(recording.touched)))
        elif recording.touched:
            self._owner.keep_recording(self.terms.fork_id, recording.touched)

    def populate(self, tell: Tell) -> None:
        """Have every absent page filled and then none reported any more; it is served on, until it is released.

        What was raised before the end is still to be read: a VMM that gives pages back waits for that.
        """
        if self._pager is None or self._handshake is None:
            tell(self.ended or "its VMM has made no handshake")
            return
        if self._population is None or self._population.ended:
            self._end_recording()
            # What is populated is asked for no more, wanted or not.
            self._judge_sample()
            self._population = Population(self._loop, self._handshake, self._pager, self._map, self._page_size)
        self._population.when_ended(tell)

    # Prefetch

    def _begin_prefetch(self, mappings: Sequence[Mapping]) -> None:
        assert self._pager is not None
        # What is prefetched does not fault, and would be missing in the recording.
        wanted = self.terms.prefetch != "off" and not self.terms.record
        plan = self._owner.plan(self.terms.fork_id, mappings) if wanted else Plan()
        if not plan.runs:
            self._set_attached(Attached(0, 0, 0.0))
            return
        if plan.held_back:
            self._held_back = HeldBack(plan.held_back)
        if self.terms.prefetch == "concurrent":
            self._set_attached(Attached(0, 0, 0.0))
        self._prefetching = Prefetching(
            self._loop, self._pager, self._map, plan.runs, self._page_size, self._prefetch_ended
        )

    def _prefetch_ended(self) -> None:
        if self._held_back is not None:
            self._loop.call_later(self._policy.sample_seconds, self._judge_sample)
        if self._attached is None:
            counters = self._map.counters
            pages, length = counters[page_map.PREFETCHED_PAGES], counters[page_map.PREFETCHED_BYTES]
            self._set_attached(Attached(pages, length, counters[page_map.PREFETCH_NS] / 1e9))

    def _judge_sample(self) -> None:
        held_back, self._held_back = self._held_back, None
        if held_back is not None and self._map.counters[page_map.PREFETCH_FINISHED]:
            self._owner.keep_sample(*held_back.judge(self._map.pages))

    def _set_attached(self, attached: Attached) -> None:
        self._attached = attached
        self._tell_waiting(attached)


def _reason(error: OSError) -> str:
    if isinstance(error, GONE_ERRORS):
        return f"its memory has gone: {error.strerror}"
    return f"its userfaultfd cannot be served: {error.strerror or error}"
