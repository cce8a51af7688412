"""What a request says where nobody reads it may have been meant to hold it back: it is refused, and nothing is done."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import hypeman.types as hypeman
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from forktui.client.api import SupervisorClient
from supervisor.api.app import build_app
from supervisor.api.closing import Closing
from supervisor.api.connections import Connections
from supervisor.api.requests import DeleteQuery, Nothing, Query, parse
from supervisor.api.server import LIMITS, serve
from supervisor.errors import BadRequestError
from supervisor.host.host import Host
from supervisor.models import (
    CreateRequest,
    FanOutRequest,
    ForkRequest,
    Instance,
    Request,
    StandbyRequest,
    StartRequest,
    State,
)
from tests.harness.supervisor_process import PATIENCE
from tests.harness.unix_http import connected

JSON = {"Content-Type": "application/json"}
NAMES = ("running", "asleep", "off")
VALID = {"state": "Running", "timeout": "1s", "source": "app", "tail": "1", "width": "8"}
"""A value for each field of a query that `true` is none for."""
FIELDS = sorted({field for model in Query.__subclasses__() for field in model.model_fields})


@dataclass(frozen=True)
class Route:
    """One that the application has, with a path of one instance."""

    method: str
    path: str

    @property
    def takes_files(self) -> bool:
        """Whether its body is files, and JSON none of these."""
        return self.path.startswith("/images") and self.method in ("POST", "PUT")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes_of(app: web.Application) -> Iterator[Route]:
    """Yield every route, those with an instance in their path once for each of NAMES."""
    for route in app.router.routes():
        assert route.resource is not None
        for name in NAMES if "{" in route.resource.canonical else NAMES[:1]:
            yield Route(route.method, route.resource.canonical.replace("{id}", name))


@dataclass(frozen=True)
class Served:
    """A host with an instance for each verb to be allowed on, and who speaks to it."""

    host: Host
    http: httpx.AsyncClient
    socket: Path

    def routes(self) -> list[Route]:
        """Return every route of its application."""
        return list(routes_of(build_app(self.host, Closing(), Connections(LIMITS))))

    def instances(self) -> list[Instance]:
        """Return what there is, whatever was asked."""
        return self.host.queries.instances()


@pytest.fixture
async def served(host: Host, run_dir: Path) -> AsyncIterator[Served]:
    path = run_dir / "s.sock"
    server = await serve(host, path)
    async with SupervisorClient(path) as client:
        for name in NAMES:
            await client.create(
                CreateRequest(name=name, image="pagewalker", size="64MB", cmd=("hot_mib=4", "passes=1"))
            )
            await client.wait(name, State.RUNNING, PATIENCE)
        await client.standby("asleep")
        await client.stop("off")
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(base_url="http://localhost", transport=transport, timeout=PATIENCE) as http:
        yield Served(host, http, path)
    for instance in host.queries.instances():
        await host.delete(instance.id)
    await server.close()


async def assert_refused(served: Served, route: Route, query: str = "", body: bytes | None = None) -> None:
    """Ask, and have 400 for an answer and all as it was; a body once as JSON, once as anything, once in pieces."""
    before = served.instances()

    async def pieces() -> AsyncIterator[bytes]:
        yield body or b""

    sent: list[tuple[bytes | AsyncIterator[bytes] | None, dict[str, str]]] = [(body, JSON)]
    if body is not None:
        sent += [(body, {}), (body, {"Content-Type": "text/plain"}), (pieces(), JSON)]
    for content, headers in sent:
        said = f"{route}{query} {body!r} {headers}"
        async with served.http.stream(route.method, route.path + query, content=content, headers=headers) as answer:
            # A route with a body of its own tells by the type of another that it is none.
            files = body is not None and route.takes_files
            allowed = (400, 415) if files or "text/plain" in headers.values() else (400,)
            assert answer.status_code in allowed, said
            await answer.aread()
            if answer.status_code == 400 and route.method != "HEAD":
                assert answer.json()["code"] in ("bad_request", *(["invalid_image"] if files else [])), said
    assert served.instances() == before, f"{route}{query} {body!r} did something"


async def test_a_body_or_a_query_that_a_route_does_not_read_is_refused_by_every_route(served: Served) -> None:
    for route in served.routes():
        await assert_refused(served, route, query="?dryrun=1")
        await assert_refused(served, route, query="?=")
        await assert_refused(served, route, body=b'{"dryrun": true}')
        await assert_refused(served, route, body=b"dry_run: true")
        await assert_refused(served, route, body=b"[]")


async def test_a_field_that_is_given_twice_is_refused_by_every_route(served: Served) -> None:
    for route in served.routes():
        for field in FIELDS:
            value = VALID.get(field, "true")
            await assert_refused(served, route, query=f"?{field}={value}&{field}={value}")
        await assert_refused(served, route, body=b'{"name": "a", "name": "b"}')
        await assert_refused(served, route, body=b'{"count": 1, "dry_run": true, "dry_run": false}')
        await assert_refused(
            served, route, body=b'{"name": "a", "image": "pagewalker", "env": {"a": "b", "\\u0061": "c"}}'
        )


async def test_what_is_read_elsewhere_is_told_where(served: Served) -> None:
    """The same word in the query of one route is in the body of another."""

    async def message(method: str, target: str, body: bytes | None = None) -> str:
        answer = await served.http.request(method, target, content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
        return str(answer.json()["message"])

    before = served.instances()
    told = await message("DELETE", "/instances/off", b'{"dry_run": true}')
    assert told == "dry_run is read from the query: DELETE /instances/off?dry_run=true"
    told = await message("DELETE", "/instances/off?dry_run=true", b'{"cascade": true, "dry_run": false}')
    assert "cascade is read from the query: DELETE /instances/off?cascade=true" in told
    told = await message("POST", "/instances/asleep/fan-out?dry_run=true", b'{"count": 1}')
    assert told == 'dry_run is read from the body: {"dry_run": ...}'
    told = await message("POST", "/instances/asleep/fork?name=other")
    assert told == 'name is read from the body: {"name": ...}'
    assert await message("DELETE", "/instances/off", b"dry_run: true") == "no body is read here; leave it out"
    told = await message("DELETE", "/instances/off", b'{"dry_run": "%s"}' % (b"x" * 1000))
    assert told == "dry_run is read from the query: DELETE /instances/off?dry_run=..."
    told = await message("POST", "/instances/running/stop", b'{"force": true}')
    assert told == "force: it is not known here; leave it out"
    told = await message("GET", "/instances?state=Running&state=Standby")
    assert told == "state: it is given twice; give it once"
    assert served.instances() == before


async def test_a_fragment_is_refused() -> None:
    """Of aiohttp's two parsers of HTTP one takes it from the path."""
    request = make_mocked_request("DELETE", "/instances/off#?dry_run=true")
    with pytest.raises(BadRequestError, match="what follows a # is not read"):
        await parse(request, DeleteQuery, Nothing, Closing())


@pytest.mark.parametrize("nothing", [b"", b" \r\n", b"{}", b" { } "])
async def test_a_body_that_says_nothing_is_none(served: Served, nothing: bytes) -> None:
    for method, target in (("GET", "/instances"), ("DELETE", "/instances/off?dry_run=true"), ("GET", "/health")):
        answer = await served.http.request(method, target, content=nothing)
        assert answer.status_code == 200
    assert (await served.http.request("POST", "/instances/asleep/fork", content=nothing)).status_code == 201


def refused_and_asked_again(path: Path, first: bytes) -> list[bytes]:
    """Send a request and another behind it on one connection; return the statuses of the answers."""
    with connected(path) as peer:
        peer.sendall(first + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = peer.makefile("rb").read()
    return re.findall(rb"HTTP/1\.1 (\d+) ", answers)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x"])
async def test_a_body_that_is_encoded_is_refused_as_such(
    served: Served, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    for method, target in (("POST", "/instances/off/start"), ("DELETE", "/instances/off"), ("POST", "/instances")):
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Encoding: {encoding}\r\nContent-Length: 9\r\n\r\n"
        statuses = await asyncio.to_thread(refused_and_asked_again, served.socket, head.encode() + b"no gzip!!")
        assert statuses[0] == b"415"
    assert "off" in [one.name for one in served.instances()]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
async def test_a_connection_goes_on_behind_a_body_that_is_refused(served: Served, method: bytes) -> None:
    body = b'{"dry_run": true}'
    length = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for sent in (length, chunks):
        head = method + b" /instances/off HTTP/1.1\r\nHost: x\r\n"
        statuses = await asyncio.to_thread(refused_and_asked_again, served.socket, head + sent)
        assert statuses == [b"400", b"200"]
    assert "off" in [one.name for one in served.instances()]


async def test_a_body_that_does_not_come_is_not_waited_for_for_ever(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.api.requests.BODY_SECONDS", 0.2)

    def ask(method: bytes) -> bytes:
        with connected(served.socket) as peer:
            peer.sendall(method + b" /instances/off HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            return peer.makefile("rb").readline()

    for method in (b"GET", b"DELETE"):
        assert await asyncio.to_thread(ask, method) == b"HTTP/1.1 400 Bad Request\r\n"
    assert "off" in [one.name for one in served.instances()]


@pytest.mark.parametrize(
    ("model", "hypemans"),
    [
        (CreateRequest, hypeman.InstanceCreateParams),
        (ForkRequest, hypeman.InstanceForkParams),
        (StandbyRequest, hypeman.InstanceStandbyParams),
        (StartRequest, hypeman.InstanceStartParams),
    ],
)
def test_every_field_of_hypemans_is_taken_or_passed_over(model: type[Request], hypemans: type) -> None:
    """Its SDK sends what its user gave, and some of that means nothing here."""
    assert set(hypemans.__annotations__) <= {*model.model_fields, *model.passed_over}
    assert not set(model.passed_over) - set(hypemans.__annotations__)
    assert not set(model.model_fields) & set(model.passed_over)


def test_a_request_that_is_ours_alone_passes_nothing_over() -> None:
    assert FanOutRequest.passed_over == frozenset()
