"""The aiohttp application of one host."""

from typing import TYPE_CHECKING

from aiohttp import web

from supervisor.api.answers import answer_errors
from supervisor.api.closing import Closing
from supervisor.api.connections import Connections
from supervisor.api.instances import Routes
from supervisor.api.peer import authorize, log_changes
from supervisor.api.requests import BODY_LIMIT
from supervisor.api.streaming import Streams

if TYPE_CHECKING:
    from supervisor.host.host import Host


def build_app(host: "Host", closing: Closing, connections: Connections) -> web.Application:
    """Return the application; the first middleware is the outermost."""
    app = web.Application(middlewares=[log_changes, answer_errors, authorize], client_max_size=BODY_LIMIT)
    routes = Routes(host, Streams(host.events, closing), closing).table()
    app.add_routes([route.definition(closing, connections) for route in routes])
    return app
