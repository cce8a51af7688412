"""The supervisor's handle on a page server: spawn one or find one again, give it forks, hear its events."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from supervisor.errors import PageServerError
from supervisor.uffd import handshake
from supervisor.uffd.control import (
    LINE_BYTES,
    SUN_PATH_BYTES,
    Attached,
    Configuration,
    Failing,
    Gone,
    PageServerEvent,
    Policy,
    Prefetch,
    Recorded,
    RecordingDropped,
    Refused,
    Sampled,
    Status,
    decode,
    decode_event,
    decode_status,
    encode,
    encode_configuration,
)
from supervisor.uffd.program import Started, start, start_time_of
from supervisor.uffd.takeover import take_userfaultfd

__all__ = [
    "Attached",
    "Failing",
    "Gone",
    "PageServer",
    "PageServerEvent",
    "Policy",
    "Prefetch",
    "Recorded",
    "RecordingDropped",
    "Refused",
    "Sampled",
    "Status",
]

_START_SECONDS = 15.0
_ANSWER_SECONDS = 10.0
_PREFETCH_SECONDS = 60.0
"""What `served` allows for the prefetch, beyond the time for the handshake."""
_STOP_SECONDS = 3.0


def _absolute(path: Path) -> str:
    """The path as a page server needs it, whose working directory is its own affair."""
    return str(path.absolute())


class PageServer:
    """One page server, and the connection to it; made by `spawn` or `connect`."""

    def __init__(self, template_id: str, process: Started, on_event: Callable[[PageServerEvent], None]) -> None:
        self.template_id = template_id
        self.pid = process.pid
        self.start_time = process.start_time
        """Clock ticks since boot; with the pid it names the process for as long as the host is up."""
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """The exit code, negative for a signal; None for a page server that an earlier supervisor had spawned."""
        self.forks: set[str] = set()
        """The forks that it was given or had already, and has not told to be gone."""
        self._pidfd = process.pidfd
        self._on_event = on_event
        self._control = Path()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._requests = 0
        self._handshake_seconds = 0.0
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

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
        log: Path,
        policy: Policy,
        on_event: Callable[[PageServerEvent], None],
    ) -> Self:
        """Start a page server in a session of its own; it listens when this returns.

        `layers` are the image's files, newest first; sizes are bytes. Events come until `disconnect`, and in the
        thread of the running event loop. PageServerError with the reason when it does not start.
        """
        if len(os.fsencode(_absolute(control))) > SUN_PATH_BYTES:
            raise PageServerError(f"control socket {control} is longer than the {SUN_PATH_BYTES} bytes it may have")
        configuration = Configuration(
            template_id=template_id,
            layers=tuple(_absolute(layer) for layer in layers),
            memory_size=memory_size,
            page_size=page_size,
            hot_pages=_absolute(hot_pages),
            control=_absolute(control),
            policy=policy,
        )
        try:
            told, tells = os.pipe()
        except OSError as error:
            raise PageServerError(f"page server of template {template_id} cannot start: {error.strerror}") from error
        try:
            # Some hundred microseconds, and in a thread a cancellation could lose the pid.
            server = cls(template_id, start(encode_configuration(configuration), tells, log), on_event)
        except OSError as error:
            os.close(told)
            raise PageServerError(f"page server of template {template_id} cannot start: {error.strerror}") from error
        finally:
            os.close(tells)
        try:
            said = await _first_line(told)
            if said != "ready":
                reason = said.removeprefix("refused: ") or f"it said nothing; its log is {log}"
                raise PageServerError(f"page server of template {template_id} did not start: {reason}")
            await server._connect(control)
        except BaseException:
            await asyncio.shield(server._kill())
            raise
        return server

    @classmethod
    async def connect(
        cls,
        *,
        template_id: str,
        control: Path,
        pid: int,
        start_time: int,
        on_event: Callable[[PageServerEvent], None],
    ) -> Self:
        """Find a page server that is running already; PageServerError when it is not that one, or no more."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise PageServerError(f"page server of template {template_id}, pid {pid}, is not alive") from error
        try:
            server = cls(template_id, Started(pid, start_time_of(pid), pidfd), on_event)
        except PageServerError:
            os.close(pidfd)
            raise
        try:
            if server.start_time != start_time:
                raise PageServerError(f"pid {pid} is not the page server of template {template_id}: it started later")
            await server._connect(control)
        except BaseException:
            server._forget()
            server._hang_up("was not connected to")
            raise
        return server

    async def attach(
        self,
        fork_id: str,
        *,
        listen: Path,
        page_map: Path,
        vmm_pid: int,
        prefetch: Prefetch = "before_resume",
        record: bool = False,
    ) -> None:
        """Have it listen for the fork's VMM at `listen` and make its page map; then the VMM may load the snapshot.

        Only `vmm_pid` may connect. A fork that records is not prefetched and gets one page a fault. PageServerError
        when the image's layers are not what they were, or a path or the pid cannot be used.
        """
        await self._request(
            "attach",
            fork_id=fork_id,
            listen=_absolute(listen),
            page_map=_absolute(page_map),
            vmm_pid=vmm_pid,
            prefetch=prefetch,
            record=record,
        )
        self.forks.add(fork_id)

    async def adopt(self, fork_id: str, *, page_map: Path, vmm_pid: int) -> None:
        """Have it take over a fork whose page server died; the guest goes on where it waited.

        The userfaultfd is taken out of the VMM. PageServerError when the VMM has gone, or something is not to be had.
        """
        request = {"id": 0, "verb": "adopt", "fork_id": fork_id, "page_map": _absolute(page_map), "vmm_pid": vmm_pid}
        answer = await asyncio.to_thread(_hand_over, self._control, vmm_pid, encode(request))
        if "error" in answer:
            raise PageServerError(answer["error"])
        self.forks.add(fork_id)

    async def served(self, fork_id: str) -> Attached:
        """Wait for the fork's handshake and, with `before_resume`, for the end of its prefetch.

        PageServerError with the reason when it was refused, came too late, or the fork has gone.
        """
        seconds = self._handshake_seconds + _PREFETCH_SECONDS
        return Attached(**await self._request("served", seconds, fork_id=fork_id))

    async def populate(self, fork_id: str) -> None:
        """Have every absent page of the fork provided and then none reported any more; it takes as long as it takes.

        The page server stays with it until `release`. PageServerError when it could not be done, or the page server
        dies over it: the fork needs one as before then.
        """
        await self._request("populate", None, fork_id=fork_id)

    async def release(self, fork_id: str) -> None:
        """Serve the fork no more: close its userfaultfd and its socket; its map stays, and its recording if whole."""
        self.forks.discard(fork_id)
        await self._request("release", fork_id=fork_id)

    async def status(self, *, seconds: float = _ANSWER_SECONDS) -> Status:
        """What it serves and what it has recorded; PageServerError when it has not answered after `seconds`."""
        return decode_status(await self._request("status", seconds))

    async def ping(self, *, seconds: float) -> None:
        """Return when it has answered; PageServerError when it has not after `seconds`."""
        await self._request("ping", seconds)

    async def stop(self) -> None:
        """Stop it, by SIGKILL when asking does not do; returns when it has exited and is reaped.

        A fork that it served waits in its next fault until another page server takes over.
        """
        if not self.exited.done() and self._pidfd >= 0:
            with contextlib.suppress(PageServerError):
                await self._request("stop", _STOP_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await asyncio.shield(self.exited)
        await self._kill()

    def kill(self) -> None:
        """End it with SIGKILL, without waiting; `exited` tells when it is gone."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def disconnect(self) -> None:
        """Let go of it: it runs on, and `connect` finds it again; no event comes after this."""
        self._forget()
        writer, reading = self._writer, self._reading
        self._hang_up("was disconnected from")
        if reading is not None:
            await asyncio.wait([reading])
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, control: Path) -> None:
        self._control = control
        try:
            reader, self._writer = await asyncio.open_unix_connection(control, limit=2 * LINE_BYTES)
        except OSError as error:
            raise self._error(f"does not listen at {control}: {error.strerror}") from error
        connection: socket.socket = self._writer.get_extra_info("socket")
        pid = handshake.peer_pid(connection)
        if pid != self.pid:
            raise self._error(f"is not who listens at {control}: that is pid {pid}")
        self._reading = asyncio.create_task(self._read(reader), name=f"page server {self.template_id}")
        status = await self.status()
        if status.template_id != self.template_id:
            raise self._error(f"serves template {status.template_id}")
        self._handshake_seconds = status.handshake_seconds
        self.forks.update(status.forks)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "has closed its control connection"
        try:
            while line := await reader.readline():
                self._take(decode(line))
        except (OSError, ValueError, TypeError) as error:
            reason = f"cannot be understood: {error}"
        self._hang_up(reason)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            event = decode_event(message)
            if isinstance(event, Gone):
                self.forks.discard(event.fork_id)
            self._on_event(event)
            return
        answer = self._answers.pop(message["id"], None)
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(PageServerError(message["error"]))
        else:
            answer.set_result(message["result"])

    async def _request(self, verb: str, seconds: float | None = _ANSWER_SECONDS, **fields: Any) -> Any:
        if self._writer is None:
            raise self._error("is not connected")
        self._requests += 1
        number = self._requests
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode({"id": number, "verb": verb, **fields}))
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise self._error(f"did not answer {verb} within {seconds:g} s") from None
        finally:
            self._answers.pop(number, None)

    def _error(self, what: str) -> PageServerError:
        return PageServerError(f"page server of template {self.template_id}, pid {self.pid}, {what}")

    def _hang_up(self, reason: str) -> None:
        """Close the connection and fail what waits for an answer."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._reading = None
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._error(reason))
        self._answers.clear()

    def _forget(self) -> None:
        """Stop following its exit."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_exit(self) -> None:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            code = None
        else:
            if result is None:
                return
            code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self._forget()
        if not self.exited.done():
            self.exited.set_result(code)
        self._hang_up("has exited" if code is None else f"has exited with {code}")

    async def _kill(self) -> None:
        """See that it is dead, reaped, and the connection closed."""
        if not self.exited.done() and self._pidfd >= 0:
            self.kill()
            await self.exited
        self._hang_up("has been stopped")


def _hand_over(control: Path, vmm_pid: int, request: bytes) -> dict[str, Any]:
    """Send a request with the VMM's userfaultfd, on a connection of its own, and return the answer. Blocks."""
    uffd = take_userfaultfd(vmm_pid)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(os.fspath(control))
            socket.send_fds(connection, [request], [uffd])
            with connection.makefile("rb") as answers:
                while answer := decode(answers.readline(LINE_BYTES)):
                    if "event" not in answer:
                        return answer
    except (OSError, ValueError) as error:
        raise PageServerError(f"the page server at {control} cannot be given a fork: {error}") from error
    finally:
        os.close(uffd)
    raise PageServerError(f"the page server at {control} gave no answer")


async def _first_line(pipe: int) -> str:
    """What is said first on a pipe that this closes; empty when it ends or stays silent for too long."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
    )
    try:
        async with asyncio.timeout(_START_SECONDS):
            return (await reader.readline()).decode().strip()
    except TimeoutError:
        return ""
    finally:
        transport.close()
