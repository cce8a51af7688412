"""The routes: each says what it reads, asks the host, and answers."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from pydantic import TypeAdapter

from supervisor.api.answers import JSON, answer
from supervisor.api.closing import Closing, while_read
from supervisor.api.console import serve_console
from supervisor.api.dispatch import Asked, Route
from supervisor.api.log_file import LogFile
from supervisor.api.peer import begin_typing, check_may_ask
from supervisor.api.requests import (
    CancelQuery,
    ConsoleQuery,
    DeleteQuery,
    ListQuery,
    LogsQuery,
    MemoryQuery,
    Nothing,
    UploadQuery,
    WaitQuery,
    wait_bound,
)
from supervisor.api.streaming import Streams
from supervisor.api.uploads import multipart, one_file
from supervisor.models import (
    AcceptRequest,
    BuildImageRequest,
    CheckpointRequest,
    CreateRequest,
    FanOutRequest,
    ForkRequest,
    ImageInfo,
    Instance,
    Operation,
    StandbyRequest,
    StartRequest,
    WaitResult,
)
from supervisor.models.readiness import parse_readiness

if TYPE_CHECKING:
    from supervisor.host.host import Host

_IMAGES: Final = TypeAdapter(list[ImageInfo])
_INSTANCES: Final = TypeAdapter(list[Instance])
_OPERATIONS: Final = TypeAdapter(list[Operation])
_CAPABILITIES: Final = TypeAdapter(dict[str, object])


class Routes:
    """What the API answers, for one host."""

    def __init__(self, host: "Host", streams: Streams, closing: Closing) -> None:
        self._host = host
        self._streams = streams
        self._closing = closing

    def table(self) -> list[Route[Any, Any]]:
        """Return every route: its method and path, the query and the body that it reads, and what answers."""
        one = "/instances/{id}"
        return [
            Route("GET", "/health", Nothing, Nothing, self._health),
            Route("GET", "/capabilities", Nothing, Nothing, self._capabilities),
            Route("GET", "/metrics", Nothing, Nothing, self._metrics),
            Route("GET", "/events", Nothing, Nothing, self._events, endless=True),
            Route("GET", "/images", Nothing, Nothing, self._images),
            Route("POST", "/images", UploadQuery, Nothing, self._build_image, uploads=True),
            Route("PUT", "/images/{id}", UploadQuery, Nothing, self._add_image, uploads=True),
            Route("DELETE", "/images/{id}", Nothing, Nothing, self._remove_image),
            Route("GET", "/instances", ListQuery, Nothing, self._list),
            Route("POST", "/instances", Nothing, CreateRequest, self._create),
            Route("GET", one, Nothing, Nothing, self._get),
            Route("DELETE", one, DeleteQuery, Nothing, self._delete),
            Route("POST", f"{one}/start", Nothing, StartRequest, _verb(self._host.start)),
            Route("POST", f"{one}/stop", Nothing, Nothing, _verb(self._host.stop)),
            Route("POST", f"{one}/standby", Nothing, StandbyRequest, _verb(self._host.standby)),
            Route("POST", f"{one}/restore", Nothing, Nothing, _verb(self._host.restore)),
            Route("POST", f"{one}/detach", Nothing, Nothing, _verb(self._host.detach)),
            Route("POST", f"{one}/accept", Nothing, AcceptRequest, self._accept),
            Route("POST", f"{one}/fork", Nothing, ForkRequest, self._fork),
            Route("POST", f"{one}/fan-out", Nothing, FanOutRequest, self._fan_out),
            Route("POST", f"{one}/checkpoint", Nothing, CheckpointRequest, self._checkpoint),
            Route("GET", f"{one}/wait", WaitQuery, Nothing, self._wait, endless=True),
            Route("GET", f"{one}/logs", LogsQuery, Nothing, self._logs, endless=True),
            Route("GET", f"{one}/console", ConsoleQuery, Nothing, self._console, endless=True),
            Route("GET", f"{one}/stats", Nothing, Nothing, self._stats),
            Route("GET", f"{one}/lineage", Nothing, Nothing, self._lineage),
            Route("GET", f"{one}/memory", MemoryQuery, Nothing, self._memory),
            Route("GET", f"{one}/machine", Nothing, Nothing, self._machine),
            Route("GET", "/operations", Nothing, Nothing, self._operations),
            Route("GET", "/operations/{id}", Nothing, Nothing, self._operation),
            Route("DELETE", "/operations/{id}", CancelQuery, Nothing, self._cancel),
        ]

    async def _health(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _capabilities(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return web.Response(body=_CAPABILITIES.dump_json(self._host.capabilities()), content_type=JSON)

    async def _metrics(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        body, content_type = await self._host.metrics(asked.request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _events(self, asked: Asked[Nothing, Nothing]) -> web.StreamResponse:
        return await self._streams.events(asked.request)

    async def _images(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return web.Response(body=_IMAGES.dump_json(await self._host.images()), content_type=JSON)

    async def _build_image(self, asked: Asked[UploadQuery, Nothing]) -> web.Response:
        request, parts = await multipart(asked.request, BuildImageRequest, self._closing)
        told = asked.query.bytes or asked.request.content_length
        return answer(await self._host.build_image(request, parts, told), HTTPStatus.CREATED)

    async def _add_image(self, asked: Asked[UploadQuery, Nothing]) -> web.Response:
        told = asked.query.bytes or asked.request.content_length
        files = one_file(asked.request, self._closing)
        return answer(await self._host.add_image(asked.reference, files, told), HTTPStatus.CREATED)

    async def _remove_image(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        await self._host.remove_image(asked.reference)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _list(self, asked: Asked[ListQuery, Nothing]) -> web.Response:
        instances = self._host.queries.instances(asked.query.state)
        return web.Response(body=_INSTANCES.dump_json(instances), content_type=JSON)

    async def _create(self, asked: Asked[Nothing, CreateRequest]) -> web.Response:
        return answer(await self._host.create(asked.body), HTTPStatus.CREATED)

    async def _get(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return answer(self._host.queries.instance_in_full(asked.reference))

    async def _delete(self, asked: Asked[DeleteQuery, Nothing]) -> web.Response:
        if asked.query.dry_run:
            return answer(await self._host.deletion_plan(asked.reference, cascade=asked.query.cascade))
        await self._host.delete(asked.reference, cascade=asked.query.cascade)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _fork(self, asked: Asked[Nothing, ForkRequest]) -> web.Response:
        return answer(await self._host.fork(asked.reference, asked.body), HTTPStatus.CREATED)

    async def _fan_out(self, asked: Asked[Nothing, FanOutRequest]) -> web.Response:
        if asked.body.dry_run:
            return answer(await self._host.fan_out_estimate(asked.reference, asked.body))
        return answer(await self._host.fan_out(asked.reference, asked.body))

    async def _accept(self, asked: Asked[Nothing, AcceptRequest]) -> web.Response:
        return answer(await self._host.accept(asked.reference, asked.body))

    async def _checkpoint(self, asked: Asked[Nothing, CheckpointRequest]) -> web.Response:
        return answer(await self._host.checkpoint(asked.reference, asked.body), HTTPStatus.CREATED)

    async def _wait(self, asked: Asked[WaitQuery, Nothing]) -> web.Response:
        query, queries = asked.query, self._host.queries
        seconds = wait_bound(query, asked.request.headers)
        if query.readiness is not None and not parse_readiness(query.readiness).is_cheap:
            check_may_ask(asked.request)
        instance_id = queries.instance(asked.reference).id
        wait = queries.wait(instance_id, query.state, seconds, ready=query.ready, readiness=query.readiness)
        try:
            async with self._closing.bound(None):
                return answer(await while_read(asked.request, wait))
        except TimeoutError:
            now = self._host.queries.instance(instance_id)
            return answer(WaitResult(state=now.state, timed_out=True, state_error=now.state_error))

    async def _logs(self, asked: Asked[LogsQuery, Nothing]) -> web.StreamResponse:
        path = self._host.queries.log_file(asked.reference, asked.query.source)
        return await self._streams.log(asked.request, LogFile(path), asked.query)

    async def _console(self, asked: Asked[ConsoleQuery, Nothing]) -> web.StreamResponse:
        if not asked.query.watch:
            begin_typing(asked.request)
        console = self._host.console(asked.reference, watch=asked.query.watch)
        return await serve_console(asked.request, asked.query, console, self._closing)

    async def _stats(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return answer(await self._host.queries.stats(asked.reference))

    async def _lineage(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return answer(self._host.queries.lineage(asked.reference))

    async def _memory(self, asked: Asked[MemoryQuery, Nothing]) -> web.Response:
        return answer(await self._host.queries.memory(asked.reference, asked.query.width))

    async def _machine(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return answer(await self._host.queries.machine(asked.reference))

    async def _operations(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return web.Response(body=_OPERATIONS.dump_json(self._host.operations()), content_type=JSON)

    async def _operation(self, asked: Asked[Nothing, Nothing]) -> web.Response:
        return answer(self._host.operation(asked.reference))

    async def _cancel(self, asked: Asked[CancelQuery, Nothing]) -> web.Response:
        return answer(await self._host.cancel(asked.reference, delete_made=asked.query.made == "delete"))


def _verb(verb: Callable[[str], Awaitable[Instance]]) -> Callable[[Asked[Any, Any]], Awaitable[web.Response]]:
    async def handle(asked: Asked[Any, Any]) -> web.Response:
        return answer(await verb(asked.reference))

    return handle
