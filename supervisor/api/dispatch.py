"""The one way from a request to what answers it: all that it says is read by its route's models, or it is refused."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic

from aiohttp import web

from supervisor.api.closing import Closing
from supervisor.api.connections import Connections
from supervisor.api.requests import BodyModel, QueryModel, expect, parse, parse_query


@dataclass(frozen=True)
class Asked(Generic[QueryModel, BodyModel]):
    """A request whose query and body are what its route reads, and no more."""

    request: web.Request
    query: QueryModel
    body: BodyModel

    @property
    def reference(self) -> str:
        """What the path names: an instance's id, name or unique id prefix."""
        return self.request.match_info["id"]


@dataclass(frozen=True)
class Route(Generic[QueryModel, BodyModel]):
    """A method and a path, the models of what is read of their requests, and what answers them.

    The models forbid what they do not know; `Nothing` reads nothing.
    """

    method: str
    path: str
    query: type[QueryModel]
    body: type[BodyModel]
    answer: Callable[[Asked[QueryModel, BodyModel]], Awaitable[web.StreamResponse]]
    endless: bool = False
    """Whether an answer may have no end, so that a HEAD would get none, and a user has only so many."""
    uploads: bool = False
    """Whether the body is files, which are read as they come by what answers; the model of the body is empty."""

    def definition(self, closing: Closing, connections: Connections) -> web.RouteDef:
        """Return the route for aiohttp."""

        async def dispatch(request: web.Request) -> web.StreamResponse:
            if self.uploads:
                asked = Asked(request, parse_query(request, self.query), self.body())
            else:
                asked = Asked(request, *await parse(request, self.query, self.body, closing))
            with connections.endless(request) if self.endless else nullcontext():
                return await self.answer(asked)

        if self.method == "GET":
            return web.get(self.path, dispatch, allow_head=not self.endless, expect_handler=expect)
        return web.route(self.method, self.path, dispatch, expect_handler=expect)
