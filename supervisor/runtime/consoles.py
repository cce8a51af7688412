"""The console holder of this data directory: found again or started, handed every pipe, watched, replaced."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from supervisor.concurrency.tasks import Background
from supervisor.consoles.handle import ConsoleHolder, Dropped, HolderEvent
from supervisor.consoles.outputs import NO_FIFOS, Fifos, Given, Outputs, output_pipe, take
from supervisor.errors import ConsoleHolderError
from supervisor.models import how_many
from supervisor.models.base import Report
from supervisor.runtime.liveness import STOPPED_BOUND, Liveness
from supervisor.runtime.orphans import end
from supervisor.runtime.own_processes import identity_of, is_console_holder
from supervisor.runtime.restart_backoff import RestartBackoff
from supervisor.store.layout import Layout
from supervisor.store.records import ProcessIdentity
from supervisor.system.unix_sockets import listener_at

WATCH_PERIOD = 0.25
"""Seconds between two questions to the holder."""


@dataclass
class Writer:
    """A process whose pipes are to be held."""

    pid: int
    start_time: int
    outputs: Outputs
    answers: Sequence["asyncio.Future[None]"] | None = None
    """Of the present holder to each pipe that it was handed; None before."""

    def refusal(self) -> BaseException | None:
        """Return why the holder does not have one of them."""
        answered = (answer.exception() for answer in self.answers or () if answer.done() and not answer.cancelled())
        return next((error for error in answered if error is not None), None)


class Consoles:
    """At most one holder; whatever becomes of it, what is written waits in the pipes of those who write."""

    def __init__(
        self, layout: Layout, console_bytes: int, report: Report, on_dropped: Callable[[Dropped], None]
    ) -> None:
        """`console_bytes` is the most of a console that is kept; `on_dropped` hears of logs that cannot be written."""
        self.console_bytes = console_bytes
        self._layout = layout
        self._report = report
        self._on_dropped = on_dropped
        self._holder: ConsoleHolder | None = None
        self._writers: dict[int, Writer] = {}
        self._told: set[str] = set()
        self._replacing: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._backoff = RestartBackoff()
        self._background = Background("the care for the console holder")

    @property
    def pid(self) -> int | None:
        """The holder that runs."""
        return None if self._holder is None else self._holder.pid

    async def reconnect(self) -> None:
        """Find the holder that an earlier supervisor left running; one that does not answer is ended."""
        identity = await asyncio.to_thread(self.listening)
        if identity is None:
            return
        try:
            control = self._layout.console_socket
            holder = await ConsoleHolder.connect(control, identity.pid, identity.start_time, self._on_event)
        except ConsoleHolderError as error:
            self._report("warning", error.message, None)
            await asyncio.to_thread(end, identity)
        else:
            self._follow(holder)

    def listening(self) -> ProcessIdentity | None:
        """Return the holder that listens for supervisors. Blocks."""
        listener = listener_at(self._layout.console_socket)
        found = identity_of(listener[0]) if listener else None
        return found if found is not None and is_console_holder(found, self._layout) else None

    def go_on(self) -> None:
        """Have a holder where there is something to hold and there is none."""
        if self._holder is None and (self._replacing is None or self._replacing.done()):
            self._replacing = self._background.spawn(self._replace())

    async def ready(self) -> None:
        """Return when there is a holder; where none can be started, that is tried again in the background."""
        async with self._starting:
            if self._holder is not None:
                return
            try:
                holder = await ConsoleHolder.spawn(self._layout.data_dir, self._layout.console_socket, self._on_event)
            except ConsoleHolderError as error:
                self._tell_once(f"{error.message}; what guests print waits")
                self.go_on()
            else:
                self._follow(holder)

    @contextlib.contextmanager
    def pipes(self, outputs: Outputs, fifos: Fifos = NO_FIFOS) -> Iterator[Given]:
        """Give a process pipes; once it has inherited them, the context may end. Raises OSError."""
        holder, answers, descriptors = self._holder, list[asyncio.Future[None]](), dict[int, int]()

        def follow(pid: int, start_time: int) -> None:
            handed = len(answers) == len(outputs) and holder is self._holder
            self._writers[pid] = Writer(pid, start_time, outputs, answers if handed else None)
            self.go_on()

        with contextlib.ExitStack() as stack:
            for number, log in outputs.items():
                reader, writer = output_pipe(fifos.get(number))
                stack.callback(os.close, writer)
                descriptors[number] = writer
                try:
                    if holder is not None:
                        answers.append(holder.hold(log, reader))
                except ConsoleHolderError:
                    pass  # it is handed over later
                finally:
                    os.close(reader)
            yield Given(descriptors, follow)

    def adopt(self, pid: int, start_time: int, outputs: Outputs) -> None:
        """Have the pipes of a process copied that runs already; one of an earlier version writes to files itself."""
        self._writers[pid] = writer = Writer(pid, start_time, outputs)
        if self._holder is not None:
            self._hand(self._holder, writer)

    async def drained(self, pid: int) -> None:
        """Return when all is in its files that a process has written which has ended, and forget it; bounded."""
        writer, holder = self._writers.pop(pid, None), self._holder
        if writer is not None and holder is not None:
            with contextlib.suppress(ConsoleHolderError):
                await holder.drained([log.path for log in writer.outputs.values()])

    async def put_back(self) -> bool:
        """Have the holder's socket where it belongs; returns whether that was to be done. Raises ConsoleHolderError."""
        return self._holder is not None and await self._holder.put_back()

    async def close(self) -> None:
        """Let go of the holder, which goes on while there is something to hold."""
        await self._background.cancel()
        holder, self._holder = self._holder, None
        if holder is not None:
            await holder.leave()

    def _follow(self, holder: ConsoleHolder) -> None:
        self._holder = holder
        self._told.clear()
        holder.exited.add_done_callback(lambda exited: self._exited(holder, exited))
        self._background.spawn(self._watch(holder))

    def _exited(self, holder: ConsoleHolder, exited: "asyncio.Future[int | None]") -> None:
        if self._holder is not holder or exited.cancelled():
            return
        self._holder = None
        self._backoff.died()
        pipes = sum(len(writer.answers or ()) for writer in self._writers.values())
        for writer in self._writers.values():
            writer.answers = None
        waiting = f"; what is written to {how_many(pipes, 'pipe')} waits for another" if pipes else ""
        self._report("alarm", f"the console holder (pid {holder.pid}) died{waiting}", None)
        self.go_on()

    async def _replace(self) -> None:
        """Start holders until there is one for what there is to hold."""
        while self._writers and self._holder is None:
            delay = self._backoff.delay()
            if delay:
                self._tell_once(f"console holders die, or cannot be started; the next starts in {delay:.1f} s")
                await asyncio.sleep(delay)
            began = time.monotonic()
            await self.ready()
            if self._holder is None:
                self._backoff.died()
            else:
                await self._take_over(self._holder, began)

    async def _take_over(self, holder: ConsoleHolder, began: float) -> None:
        """Hand a new holder what there is to hold, and tell of how much it has."""
        self._hand_lacking(holder)
        answers = [answer for writer in self._writers.values() for answer in writer.answers or ()]
        try:
            # It answers in the order in which it is asked.
            await holder.ping(seconds=STOPPED_BOUND)
        except ConsoleHolderError:
            return
        held = sum(answer.done() and not answer.cancelled() and answer.exception() is None for answer in answers)
        if held:
            took = (time.monotonic() - began) * 1e3
            told = f"console holder {holder.pid} took over {how_many(held, 'pipe')} in {took:.0f} ms"
            self._report("warning", told, None)

    async def _watch(self, holder: ConsoleHolder) -> None:
        """Hand the holder what it lacks, and ask for a sign of life until it ends; kill it when it gives none."""
        liveness = Liveness(holder.pid)
        while self._holder is holder and not holder.exited.done():
            self._hand_lacking(holder)
            try:
                await holder.ping(seconds=STOPPED_BOUND)
                liveness.answered()
            except ConsoleHolderError:
                if not holder.exited.done() and liveness.unanswered():
                    told = f"the console holder (pid {holder.pid}) has not answered for {liveness.silent_seconds:.1f} s"
                    self._report("alarm", f"{told}; it is replaced", None)
                    holder.kill()
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_PERIOD):
                    await asyncio.shield(holder.exited)

    def _hand_lacking(self, holder: ConsoleHolder) -> None:
        for writer in self._writers.values():
            refusal = writer.refusal()
            if refusal is not None:
                self._tell_once(f"what guests and VMMs write waits, and is not kept: {refusal}; it is tried again")
            if writer.answers is None or refusal is not None:
                self._hand(holder, writer)

    def _hand(self, holder: ConsoleHolder, writer: Writer) -> None:
        """Take a process's pipes out of it, some microseconds for each, and hand them over."""
        answers, writer.answers = [], None
        for number, log in writer.outputs.items():
            try:
                reader = take(writer.pid, writer.start_time, number)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    return  # tried again
                if isinstance(error, PermissionError):
                    self._tell_once(f"what pid {writer.pid} writes to {log.path} cannot be read: {error.strerror}")
                continue
            try:
                answers.append(holder.hold(log, reader))
            except ConsoleHolderError:
                return  # tried again
            finally:
                os.close(reader)
        writer.answers = answers

    def _tell_once(self, told: str) -> None:
        """Raise an alarm, once while this holder is there."""
        if told not in self._told:
            self._told.add(told)
            self._report("alarm", told, None)

    def _on_event(self, event: HolderEvent) -> None:
        if isinstance(event, Dropped):
            self._on_dropped(event)
        else:
            self._report("alarm", f"the console holder fails: {event.reason}", None)
