"""Requests over the supervisor's socket, and all that can be wrong with one."""

import asyncio
import errno
import os
import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from forktui.client.connector import CONNECT_SECONDS, SocketConnector
from forktui.client.server_sent_events import Parser, ServerSentEvent
from forktui.client.silence import ANSWER_SECONDS, READ, VERB, Patience, SilentError, Vigil, no_answer
from forktui.client.trust import Trust, UntrustedSocketError
from supervisor.models import ErrorBody, ErrorDetail
from supervisor.settings import SOCKET_NAME, default_run_dir

ANSWER_BYTES: Final = 128 << 20
"""Of one answer or event: a host of ten thousand VMs needs a tenth of it."""

MANY: Final = 5
"""Events at once, with which more come soon."""

READ_ONLY: Final = "refused: this would change something, and --read-only (FORKTUI_READ_ONLY) is set; leave it out"

DATA_DIR: Final = "DATA_DIR"
"""Stands for a data directory that only whoever starts the supervisor knows."""

Model = TypeVar("Model", bound=BaseModel)
Answer = TypeVar("Answer")


class ApiError(Exception):
    """The supervisor refused a request or failed at it; the message is the supervisor's own line."""

    def __init__(self, status: int, code: str, message: str, details: tuple[ErrorDetail, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details


class SupervisorUnreachableError(Exception):
    """No supervisor to be trusted answers on the socket, or it went away; the message names it and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.details: tuple[ErrorDetail, ...] = ()


class Transport:
    """A session of requests to the supervisor on one Unix socket: an async context manager, for one event loop.

    `supervisor_user` is the uid of whose supervisor may answer, beside root's and this user's own. `tell` is called
    with a line where the supervisor shows no life while a verb is waited for, which goes on, and where a verb is waited
    for no more. With `read_only` nothing is sent that would change anything.
    """

    def __init__(
        self,
        socket: Path,
        supervisor_user: int | None = None,
        tell: Callable[[str], object] = lambda line: None,
        *,
        read_only: bool = False,
    ) -> None:
        self.socket = socket
        self.read_only = read_only
        self.supervisor_user = supervisor_user
        self._trust = Trust(socket, supervisor_user)
        self._tell = tell
        self._connector: SocketConnector | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._connector = SocketConnector(self.socket, self._trust)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(connector=self._connector, timeout=timeout, auto_decompress=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def _stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: Patience = READ,
        alive: Callable[[], object] = lambda: None,
        silent: Callable[[str], object] | None = None,
        gather: float = 0.0,
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the events of a stream; `alive` is called at each sign of life, `silent` where they stay out.

        Where many came at once, others are waited for, for `gather` seconds: read as they come, they would be a few in
        each turn of the loop, and a turn costs as much as some events.
        """
        parser = Parser(ANSWER_BYTES)
        vigil = self._vigil(patience, alive, silent)
        async with self._request("GET", path, READ, params=query, headers=headers) as response:
            alive()
            while True:
                async with vigil.step():
                    chunk = await response.content.readany()
                if not chunk:
                    return
                alive()
                try:
                    complete = parser.feed(chunk)
                except OverflowError as error:
                    raise self._endless() from error
                for sent in complete:
                    yield sent
                if gather and len(complete) >= MANY:
                    await asyncio.sleep(gather)

    @asynccontextmanager
    async def _web_socket(
        self, path: str, query: Mapping[str, str], *, changes: bool
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Give a WebSocket that the supervisor granted; what `changes` something is not asked for by who only looks."""
        if self._session is None:
            raise RuntimeError("the client is used outside its context")
        if self.read_only and changes:
            raise ApiError(403, "read_only", READ_ONLY)
        with self._explained(READ):
            url = URL(f"http://supervisor{path}", encoded=True)
            try:
                socket = await self._session.ws_connect(url, params=query)
            except aiohttp.WSServerHandshakeError as error:
                await self._explain_handshake(path, query, error)
                socket = await self._session.ws_connect(url, params=query)
        try:
            yield socket
        finally:
            await socket.close()

    async def _explain_handshake(
        self, path: str, query: Mapping[str, str], error: aiohttp.WSServerHandshakeError
    ) -> None:
        """Raise the refusal of a WebSocket, whose words are in a body that nobody has read: it is asked once more.

        Returns where there is no such refusal any more.
        """
        try:
            await self._call("GET", path, query=query)
        except ApiError as refused:
            # What is no WebSocket is refused last.
            if refused.status == error.status or refused.status != HTTPStatus.BAD_REQUEST:
                raise

    async def _ask(
        self,
        model: type[Model],
        method: str,
        path: str,
        body: BaseModel | aiohttp.Payload | None = None,
        query: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> Model:
        return self._understood(model.model_validate_json, await self._call(method, path, body, query, patience))

    def _understood(self, validate: Callable[[bytes], Answer], answer: bytes) -> Answer:
        try:
            return validate(answer)
        except ValidationError as error:
            why = "the supervisor's answer is not understood: is it of another version?"
            raise SupervisorUnreachableError(f"{self.socket}: {why}") from error

    async def _call(
        self,
        method: str,
        path: str,
        body: BaseModel | aiohttp.Payload | None = None,
        query: Mapping[str, str] | None = None,
        patience: Patience | None = None,
    ) -> bytes:
        """Return an answer's body; what reads has less patience than what does something."""
        options: dict[str, Any] = {"params": query}
        if isinstance(body, aiohttp.Payload):
            options["data"] = body
        elif body is not None:
            options["data"] = body.model_dump_json(exclude_unset=True).encode()
            options["headers"] = {"Content-Type": "application/json"}
        patience = patience or (READ if method == "GET" else VERB)
        # What only asks what would be done has the patience of what reads.
        if self.read_only and method != "GET" and patience is not READ:
            raise ApiError(403, "read_only", READ_ONLY)
        try:
            async with self._request(method, path, patience, **options) as response, self._vigil(patience).step():
                return await self._body(response)
        except asyncio.CancelledError:
            if method != "GET":
                self._tell(
                    f"{self.socket}: what was asked for may be done yet; forktui ls shows it, forktui cancel ends it"
                )
            raise

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > ANSWER_BYTES:
                raise self._endless()
        return bytes(body)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, patience: Patience, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give the response of a request that the supervisor granted; explain everything that can be wrong."""
        if self._session is None:
            raise RuntimeError("the client is used outside its context")
        url = URL(f"http://supervisor{path}", encoded=True)
        with self._explained(patience):
            async with self._vigil(patience).step():
                response = await self._session.request(method, url, **options)
            async with response:
                if response.status >= 400:
                    async with self._vigil(READ).step():
                        raise _refusal(response.status, await self._body(response))
                yield response

    @contextmanager
    def _explained(self, patience: Patience) -> Iterator[None]:
        """Raise SupervisorUnreachableError for everything that can be wrong with a connection."""
        try:
            yield
        except UntrustedSocketError as error:
            raise SupervisorUnreachableError(str(error)) from error
        except SilentError as error:
            yet = "" if patience is READ else "; what was asked for may be done yet"
            raise SupervisorUnreachableError(f"{self.socket}: {error}{yet}") from error
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except aiohttp.ClientError as error:
            raise self._lost("the connection was lost") from error
        except OSError as error:
            raise self._unreachable(error) from error

    def _vigil(
        self,
        patience: Patience,
        alive: Callable[[], object] = lambda: None,
        silent: Callable[[str], object] | None = None,
    ) -> Vigil:
        return Vigil(patience, self._answers, self._peer_pid, alive, silent or self._tell_silence)

    def _tell_silence(self, line: str) -> None:
        self._tell(f"{self.socket}: {line}; it is waited for")

    def _peer_pid(self) -> int:
        return self._connector.peer_pid if self._connector is not None else 0

    async def _answers(self) -> bool:
        """Return whether the supervisor answers anything, on a connection of its own."""
        assert self._session is not None
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._session.get(URL("http://supervisor/health")) as response:
                await response.read()
        except (OSError, aiohttp.ClientError, UntrustedSocketError):
            return False
        return True

    def _unreachable(self, error: OSError) -> SupervisorUnreachableError:
        if error.errno is None or error.errno == errno.EAGAIN:
            return SupervisorUnreachableError(f"{self.socket}: {no_answer(self._peer_pid(), CONNECT_SECONDS)}")
        start = f"start one with: {start_command(self.socket)}"
        reason = {
            errno.ENOENT: f"no supervisor listens there; {start}",
            errno.ECONNREFUSED: f"the supervisor there is gone; {start}",
            errno.EACCES: f"uid {os.geteuid()} may not open it; ask its owner for access by its group",
        }.get(error.errno or 0, f"{error.strerror or error}; name another socket with --socket")
        return SupervisorUnreachableError(f"{self.socket}: {reason}")

    def _endless(self) -> SupervisorUnreachableError:
        what = f"it answers with more than {ANSWER_BYTES >> 20} MiB, which no supervisor does"
        return SupervisorUnreachableError(f"{self.socket}: {what}; look who listens there")

    def _lost(self, what: str) -> SupervisorUnreachableError:
        return SupervisorUnreachableError(f"{self.socket}: {what}; look whether the supervisor still runs")


def start_command(socket: Path) -> str:
    """Return the command that starts a supervisor on a socket, and on no directories but those that are its own."""
    if socket == default_run_dir() / SOCKET_NAME:
        return "forktui-supervisor"
    if socket.name == SOCKET_NAME:
        return f"forktui-supervisor --run-dir {shlex.quote(str(socket.parent))} --data-dir {DATA_DIR}"
    return f"forktui-supervisor --socket {shlex.quote(str(socket))} --run-dir RUN_DIR --data-dir {DATA_DIR}"


def _refusal(status: int, body: bytes) -> ApiError:
    try:
        error = ErrorBody.model_validate_json(body)
    except ValidationError:
        text = body.decode("utf-8", "replace").strip() or f"the supervisor answered {status}"
        return ApiError(status, "internal_error", text.splitlines()[0])
    return ApiError(status, error.code, error.message, error.details)
