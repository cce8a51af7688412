"""What comes in: queries and bodies, all of it read by models, and explained in one line where it is refused."""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlencode

from aiohttp import ClientPayloadError, HttpVersion11, web
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from supervisor.api.answers import JSON
from supervisor.api.closing import Closing
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.models import MOST_LOG_LINES, State, explain, quoted
from supervisor.models.readiness import ReadinessText
from supervisor.models.validation import QUOTED_LENGTH

BODY_LIMIT: Final = 1 << 20
"""Bytes; the largest body that anybody needs to send has a few hundred."""
PLAIN: Final = "identity"
"""The Content-Encoding of a body that is as it is: RFC 9110, 8.4."""
BODY_SECONDS: Final = 10.0
WAIT_SECONDS: Final = 50.0
"""The longest wait; hypeman's SDK gives an answer 60 seconds."""

_READ_TIMEOUT_SHARE: Final = 5 / 6
_LISTED: Final = 3
_SECONDS: Final = {
    "ns": "1e-9",
    "us": "1e-6",
    "µs": "1e-6",
    "μs": "1e-6",
    "ms": "1e-3",
    "s": "1",
    "m": "60",
    "h": "3600",
}
_DURATION_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(ns|us|µs|μs|ms|s|m|h)")

QueryModel = TypeVar("QueryModel", bound=BaseModel)
BodyModel = TypeVar("BodyModel", bound=BaseModel)


class BodyTooLargeError(SupervisorError):
    """The body is larger than any request needs."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaTypeError(SupervisorError):
    """The body is not said to be JSON."""

    code = "unsupported_media_type"
    status = 415


def seconds_of(duration: object) -> object:
    """Return the seconds in a Go duration such as `1m30s`; what is not text is left as it is. Raises ValueError."""
    if not isinstance(duration, str) or duration == "0":
        return duration
    parts = list(_DURATION_PART.finditer(duration))
    if not parts or "".join(part[0] for part in parts) != duration:
        raise ValueError("a duration is a number with a unit, such as 500ms, 30s or 1m30s")
    return float(sum(Decimal(part[1]) * Decimal(_SECONDS[part[2]]) for part in parts))


def _ended_at_once(graceful: bool) -> bool:
    if graceful:
        raise ValueError("a guest is ended at once, and not asked to shut down; do that in the guest, and leave it out")
    return graceful


class Query(BaseModel):
    """The base of what queries say; a field that is not known may have been meant to hold the request back."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Query):
    """A query or a body that is empty."""


class WaitQuery(Query):
    """`GET /instances/{id}/wait`."""

    state: State
    timeout: Annotated[float, BeforeValidator(seconds_of)] = WAIT_SECONDS
    """Seconds; on the wire a Go duration."""
    ready: bool = False
    """Wait also until its guest is ready by its own readiness, if it has one, or has ended."""
    readiness: ReadinessText | None = None
    """Wait also until its guest is ready by this, or has ended."""


class LogsQuery(Query):
    """`GET /instances/{id}/logs`."""

    tail: int = Field(default=100, ge=0, le=MOST_LOG_LINES)
    follow: bool = False
    source: Literal["app", "vmm", "hypeman"] = "app"


class ConsoleQuery(Query):
    """`GET /instances/{id}/console`."""

    position: int | None = Field(default=None, ge=0)
    """Where in all that the guest has printed to begin (bytes); the last of it where nothing is said."""
    watch: bool = False
    """Only watch."""


class DeleteQuery(Query):
    """`DELETE /instances/{id}`."""

    cascade: bool = False
    """Delete the whole tree from the instance down."""
    dry_run: bool = False
    """Answer with the plan, and delete nothing."""
    graceful_shutdown: Annotated[bool, AfterValidator(_ended_at_once)] = False
    """hypeman's."""


class CancelQuery(Query):
    """`DELETE /operations/{id}`."""

    made: Literal["keep", "delete"] = "keep"
    """What becomes of the forks that a fan-out has made by then."""


class ListQuery(Query):
    """`GET /instances`."""

    state: State | None = None


class MemoryQuery(Query):
    """`GET /instances/{id}/memory`."""

    width: int = Field(default=64, ge=1, le=65_536)


class UploadQuery(Query):
    """`POST /images`, `PUT /images/{id}`."""

    bytes: int | None = Field(default=None, ge=1, le=1 << 62)
    """How many are to come, to show how far it is; Content-Length says so too."""


def parse_query(request: web.Request, query: type[QueryModel]) -> QueryModel:
    """Return what a request's query says; raises BadRequestError."""
    return _parse_query(request, query, Nothing)


async def parse(
    request: web.Request, query: type[QueryModel], body: type[BodyModel], closing: Closing
) -> tuple[QueryModel, BodyModel]:
    """Return all that the request says, by the models of what its route reads; an empty body is `{}`.

    Raises BadRequestError where it says more or says it twice, BodyTooLargeError or UnsupportedMediaTypeError.
    """
    return _parse_query(request, query, body), _parse_body(request, await _read(request, closing), body, query)


def _parse_query(request: web.Request, model: type[QueryModel], body: type[BaseModel]) -> QueryModel:
    if request.rel_url.raw_fragment:
        raise BadRequestError("what follows a # is not read; leave it out, or write %23 where it belongs to a name")
    _refuse_repeated([name for name, _ in request.query.items()])

    def elsewhere(field: str, value: Any) -> str | None:
        return f'{field} is read from the body: {{"{field}": ...}}' if field in body.model_fields else None

    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise refusal(error, elsewhere) from error


def _parse_body(request: web.Request, body: bytes, model: type[BodyModel], query: type[BaseModel]) -> BodyModel:
    read = body and model is not Nothing
    if read and "Content-Type" in request.headers and request.content_type != JSON:
        found = quoted(request.content_type)
        raise UnsupportedMediaTypeError(f"the body is {found}, and only {JSON} is read; set Content-Type: {JSON}")

    def elsewhere(field: str, value: Any) -> str | None:
        if field not in query.model_fields:
            return None
        told = urlencode({field: value if isinstance(value, str) else json.dumps(value)})
        shown = told if len(told) <= QUOTED_LENGTH else f"{field}=..."
        return f"{field} is read from the query: {request.method} {request.rel_url.raw_path}?{shown}"

    try:
        return parse_json(body or b"{}", model)
    except ValidationError as error:
        if model is Nothing and error.errors()[0]["type"] != "extra_forbidden":
            raise BadRequestError("no body is read here; leave it out") from error
        raise refusal(error, elsewhere) from error


def parse_json(text: bytes, model: type[BodyModel]) -> BodyModel:
    """Return what a text says by a model; raises ValidationError, and BadRequestError where it says it twice."""
    parsed = model.model_validate_json(text)
    # It takes the last of several values. Numbers are left as text, which has no bound on its digits.
    json.loads(text, object_pairs_hook=_once, parse_int=str, parse_float=str)
    return parsed


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _refuse_repeated([key for key, _ in pairs])
    return dict(pairs)


def _refuse_repeated(names: list[str]) -> None:
    known: set[str] = set()
    for name in names:
        if name in known:
            raise BadRequestError(f"{quoted(name)[1:-1]}: it is given twice; give it once")
        known.add(name)


async def expect(request: web.Request) -> None:
    """Refuse what a request expects but to be told to go on, which comes when its body is read."""
    expected = request.headers.get("Expect", "")
    if expected.lower() != "100-continue":
        raise web.HTTPExpectationFailed(text=f"{quoted(expected)} is expected in vain; leave it out")


async def _read(request: web.Request, closing: Closing) -> bytes:
    if not request.body_exists:
        return b""
    if (request.content_length or 0) > BODY_LIMIT:
        raise _too_large()
    try:
        async with closing.body(BODY_SECONDS, "the body did not arrive"):
            await accept_body(request)
            return (await request.read()).strip()
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large() from error
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
        raise BadRequestError("the body ended before its announced length; send it whole") from error


async def accept_body(request: web.Request) -> None:
    """Have the peer go on to the body where that was asked; UnsupportedMediaTypeError for one that is encoded."""
    encodings = ", ".join(request.headers.getall("Content-Encoding", [PLAIN]))
    if encodings.strip().lower() != PLAIN:
        raise UnsupportedMediaTypeError(f"the body is encoded by {quoted(encodings)}; send it plain")
    if "Expect" in request.headers and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Of the answer itself nothing is written yet.
        request.writer.output_size = 0


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is larger than {BODY_LIMIT >> 20} MiB, the most that is read")


def wait_bound(query: WaitQuery, headers: Mapping[str, str]) -> float:
    """Return how many seconds a wait may take so that its answer comes before the client stops reading.

    Clients made by Stainless, as hypeman's SDK is, send their read timeout along.
    """
    bound = min(query.timeout, WAIT_SECONDS)
    try:
        patience = float(headers.get("X-Stainless-Read-Timeout", ""))
    except ValueError:
        return bound
    return min(bound, patience * _READ_TIMEOUT_SHARE) if patience > 0 else bound


def refusal(
    error: ValidationError, elsewhere: Callable[[str, Any], str | None] = lambda field, value: None
) -> BadRequestError:
    """Return one line that names the fields and says what they may be; the details have a line for each.

    `elsewhere` says of a field that is not known where it is read, if anywhere.
    """

    def reason(problem: ErrorDetails) -> str:
        unknown = problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1
        place = elsewhere(str(problem["loc"][0]), problem["input"]) if unknown else None
        return place or explain(problem, "the body")

    reasons = [reason(problem) for problem in error.errors(include_url=False, include_context=True)]
    more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
    details = [{"code": BadRequestError.code, "message": reason} for reason in reasons]
    return BadRequestError("; ".join(reasons[:_LISTED]) + more, details if len(details) > 1 else ())
