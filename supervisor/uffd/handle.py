"""The supervisor's handle on a page server: spawn one or find one again, give it forks, hear its events."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from supervisor.concurrency.tasks import to_its_end
from supervisor.errors import PageServerError, SupervisorError
from supervisor.system.control_connection import ANSWER_SECONDS, Connection, Streams, open_streams
from supervisor.system.followed_process import OfProcess
from supervisor.system.same_file import is_at, status_at
from supervisor.system.unix_sockets import remove_file
from supervisor.uffd import program
from supervisor.uffd.confinement import Confinement, Wanted
from supervisor.uffd.control import (
    Answer,
    Attached,
    Configuration,
    Failing,
    Gone,
    PageServerEvent,
    Policy,
    Prefetch,
    PutBack,
    Recorded,
    RecordingDropped,
    Refused,
    Sampled,
    Status,
    decode_answer,
    decode_event,
)
from supervisor.uffd.earlier import rebound
from supervisor.uffd.hand_over import LeftOver, new_fork
from supervisor.uffd.memory_image import LayerIdentity, identities
from supervisor.uffd.program import PageServerProcess
from supervisor.uffd.putting_back import hand, put_control_back, put_maps_back

__all__ = [
    "Attached",
    "Failing",
    "Gone",
    "PageServer",
    "PageServerEvent",
    "Policy",
    "Prefetch",
    "PutBack",
    "Recorded",
    "RecordingDropped",
    "Refused",
    "Sampled",
    "Status",
]

_PREFETCH_SECONDS = 60.0
"""What `served` allows for the prefetch, beyond the time for the handshake."""
_STOP_SECONDS = 3.0
_ADOPTED_AT_ONCE = 4
"""Forks of which it takes one after the other, and each may take long: none is to wait for many others' answers."""

OnEvent = Callable[[PageServerEvent], None]


def _absolute(path: Path) -> str:
    """The path as a page server needs it, whose working directory is its own affair."""
    return str(path.absolute())


class PageServer(OfProcess[int | None]):
    """One page server, and the connection to it; made by `spawn` or `connect`."""

    def __init__(
        self,
        template_id: str,
        whose: str,
        process: PageServerProcess,
        control: Path,
        layers: Sequence[Path],
        streams: Streams,
        on_event: OnEvent,
    ) -> None:
        self.template_id = template_id
        self._whose = whose
        self.forks: set[str] = set()
        """The forks that it was given or had already, and has not told to be gone."""
        super().__init__(process)
        self._control = control
        self._control_file = status_at(control)
        self._layers = layers
        self._on_event = on_event
        self._connection = Connection(
            _who(whose, process), streams, lambda event: self._take_event(decode_event(event)), PageServerError
        )
        self._handshake_seconds = 0.0
        self._adopting = asyncio.Semaphore(_ADOPTED_AT_ONCE)
        self._is_handed = True
        self.confinement = Confinement()
        """How far it is confined, as it says itself."""
        process.exited.add_done_callback(self._on_exit)

    @classmethod
    async def spawn(
        cls,
        *,
        template_id: str,
        layers: Sequence[Path],
        memory_size: int,
        page_size: int,
        hot_pages: Path,
        control: Path,
        stderr: int,
        policy: Policy,
        on_event: OnEvent,
        whose: str | None = None,
        confined: Wanted | None = None,
    ) -> Self:
        """Start a page server in a session of its own; it listens when this returns.

        `whose` it is, in what is told of it: its template's, where nothing is said. `layers` are the image's files,
        newest first; sizes are bytes. It writes in the directory of its hot-page list, which has to be that user's that
        it is confined as. It logs to `stderr` what that takes at once. Events come until `disconnect`, and in the
        thread of the running event loop. PageServerError with the reason when it does not start.
        """
        configuration = Configuration(
            template_id=template_id,
            layers=tuple(_absolute(layer) for layer in layers),
            memory_size=memory_size,
            page_size=page_size,
            hot_pages=_absolute(hot_pages),
            control=_absolute(control),
            policy=policy,
            **(confined._asdict() if confined is not None else {}),
        )
        whose = whose or _of(template_id)
        process = await program.spawn(configuration, stderr, whose)
        try:
            return await cls._connected(template_id, whose, process, control, layers, on_event)
        except BaseException:
            await to_its_end(program.undo(process))
            raise

    @classmethod
    async def connect(
        cls,
        *,
        template_id: str,
        control: Path,
        pid: int,
        start_time: int,
        on_event: OnEvent,
        layers: Sequence[Path] = (),
        whose: str | None = None,
    ) -> Self:
        """Find a page server that is running already; PageServerError when it is not that one, or no more."""
        whose = whose or _of(template_id)
        who = f"page server of {whose}, pid {pid},"
        try:
            process = program.find(pid, start_time)
        except OSError as error:
            raise PageServerError(f"{who} cannot be followed: {error.strerror}") from error
        if process is None:
            raise PageServerError(f"{who} is not alive, or another process has its pid")
        try:
            return await cls._connected(template_id, whose, process, control, layers, on_event)
        except BaseException:
            process.disconnect()
            raise

    @classmethod
    async def _connected(
        cls,
        template_id: str,
        whose: str,
        process: PageServerProcess,
        control: Path,
        layers: Sequence[Path],
        on_event: OnEvent,
    ) -> Self:
        """Connect to a page server and hear from it whose it is."""
        streams = await open_streams(_who(whose, process), control, process.pid, PageServerError)
        server = cls(template_id, whose, process, control, layers, streams, on_event)
        try:
            status = await server.status()
            if status.template_id != template_id:
                raise server._connection.error(f"serves template {status.template_id}")
        except BaseException:
            server._connection.close("was not connected to")
            raise
        server._handshake_seconds = status.handshake_seconds
        server._is_handed = status.is_handed
        server.confinement = Confinement(status.own_uid, status.landlock_abi, status.seccomp, status.lacking)
        server.forks.update(status.forks)
        return server

    async def attach(
        self,
        fork_id: str,
        *,
        listener: socket.socket,
        page_map: Path,
        vmm_pid: int,
        prefetch: Prefetch = "before_resume",
        record: bool = False,
        path: Path | None = None,
    ) -> None:
        """Have it wait for the fork's VMM at `listener` and make its page map; then the VMM may load the snapshot.

        The listener is bound by the caller, who closes it after this, and removes its file once the fork is served or
        never will be; `path` is where that is, if it was bound by another. Only `vmm_pid` may connect. A fork that
        records is not prefetched and gets one page a fault. PageServerError when the image's layers are not what they
        were, or the map's path or the pid cannot be used.
        """
        fields: dict[str, Any] = {
            "fork_id": fork_id,
            "page_map": _absolute(page_map),
            "vmm_pid": vmm_pid,
            "prefetch": prefetch,
            "record": record,
        }
        if self._is_handed:
            named = await self._named()
            with new_fork(fork_id, listener, page_map, vmm_pid) as (given, new_map):
                await hand(self._connection, "attach", given, named=named, **fields)
                new_map.place()
        else:
            path = path or Path(listener.getsockname())
            with rebound(path):
                await self._connection.request("attach", listen=_absolute(path), **fields)
        self.forks.add(fork_id)

    async def adopt(self, fork_id: str, *, page_map: Path, vmm_pid: int, nothing_removed: bool = False) -> None:
        """Have it take over a fork whose page server died; the guest goes on where it waited.

        The userfaultfd is taken out of the VMM. With `nothing_removed`, which says that the guest has nothing to give
        pages back by, a page map that is lost is made anew. PageServerError when the VMM has gone, or something is not
        to be had.
        """
        fields = {
            "fork_id": fork_id,
            "page_map": _absolute(page_map),
            "vmm_pid": vmm_pid,
            "nothing_removed": nothing_removed,
        }
        async with self._adopting:
            await self._adopt(fork_id, page_map, vmm_pid, fields)
        self.forks.add(fork_id)

    async def _adopt(self, fork_id: str, page_map: Path, vmm_pid: int, fields: dict[str, Any]) -> None:
        named = await self._named()
        with LeftOver(fork_id, page_map, vmm_pid) as left:
            # What it opens is closed with the context: not before it has opened it.
            await to_its_end(asyncio.to_thread(left.open))
            if await hand(self._connection, "adopt", left.given, named=named, **fields):
                left.place_new_map()

    async def _named(self) -> list[LayerIdentity]:
        """Find what is at the layers' paths, where it may not look itself; PageServerError where one is missing."""
        return list(await asyncio.to_thread(identities, self._layers))

    async def served(self, fork_id: str) -> Attached:
        """Wait for the fork's handshake and, with `before_resume`, for the end of its prefetch.

        PageServerError with the reason when it was refused, came too late, or the fork has gone.
        """
        seconds = self._handshake_seconds + _PREFETCH_SECONDS
        return self._understood(Attached, await self._connection.request("served", seconds, fork_id=fork_id))

    async def populate(self, fork_id: str) -> None:
        """Have every absent page of the fork provided and then none reported any more; it takes as long as it takes.

        The page server stays with it until `release`. PageServerError when it could not be done, or the page server
        dies over it: the fork needs one as before then.
        """
        await self._connection.request("populate", None, fork_id=fork_id, named=await self._named())

    async def stop_populating(self, fork_id: str) -> None:
        """Have no more pages provided that nobody asks for; what came is there, and the fork is served as before."""
        await self._connection.request("stop_populating", fork_id=fork_id)

    async def release(self, fork_id: str) -> None:
        """Serve the fork no more: close its userfaultfd and its socket; its map stays, and its recording if whole."""
        self.forks.discard(fork_id)
        await self._connection.request("release", fork_id=fork_id)

    async def put_back(self, page_maps: Mapping[str, Path]) -> PutBack:
        """Have its control socket, and its forks' page maps, where they belong, as far as somebody has removed them."""
        if not self._is_handed:
            return self._understood(PutBack, await self._connection.request("put_back"))
        listens, failed = False, []
        if not is_at(self._control, self._control_file):
            try:
                await put_control_back(self._connection, self._control)
                self._control_file, listens = status_at(self._control), True
            except (OSError, SupervisorError) as error:
                failed.append(f"its control socket: {error}")
        made, more = await put_maps_back(self._connection, page_maps)
        return PutBack(listens, tuple(made), (*failed, *more))

    async def status(self, *, seconds: float = ANSWER_SECONDS) -> Status:
        """What it serves and what it has recorded; PageServerError when it has not answered after `seconds`."""
        return self._understood(Status, await self._connection.request("status", seconds))

    async def ping(self, *, seconds: float) -> None:
        """Return when it has answered; PageServerError when it has not after `seconds`."""
        await self._connection.request("ping", seconds)

    async def stop(self) -> None:
        """Stop it, by SIGKILL when asking does not do; returns when it has exited and is reaped.

        A fork that it served waits in its next fault until another page server takes over. PageServerError where it
        does not go.
        """
        if not self.exited.done():
            with contextlib.suppress(PageServerError):
                await self._connection.request("stop", _STOP_SECONDS)
            await asyncio.wait([self.exited], timeout=_STOP_SECONDS)
        try:
            await self._process.end()
        except TimeoutError as error:
            raise PageServerError(f"page server of {self._whose}: {error}") from error
        self._connection.close("has been stopped")
        if is_at(self._control, self._control_file):
            remove_file(self._control)

    def kill(self) -> None:
        """End it with SIGKILL, without waiting; `exited` tells when it is gone."""
        self._process.kill()

    async def disconnect(self) -> None:
        """Let go of it: it runs on, and `connect` finds it again; no event comes after this."""
        self._process.disconnect()
        self._connection.close("was disconnected from")
        await self._connection.wait_closed()

    def _understood(self, kind: type[Answer], answer: Any) -> Answer:
        try:
            return decode_answer(kind, answer)
        except (ValueError, TypeError) as error:
            raise self._connection.error(f"gave an answer that cannot be understood: {error}") from error

    def _take_event(self, event: PageServerEvent) -> None:
        if isinstance(event, Gone):
            self.forks.discard(event.fork_id)
        self._on_event(event)

    def _on_exit(self, exited: asyncio.Future[int | None]) -> None:
        if not exited.cancelled():
            code = exited.result()
            self._connection.close("has exited" if code is None else f"has exited with {code}")


def _of(template_id: str) -> str:
    return f"template {template_id}"


def _who(whose: str, process: PageServerProcess) -> str:
    return f"page server of {whose}, pid {process.pid},"
