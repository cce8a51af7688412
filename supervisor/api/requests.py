"""What comes in: bodies and queries, checked against models and explained in one line where they are refused."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

from aiohttp import ClientPayloadError, web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from supervisor.api.answers import JSON
from supervisor.api.closing import Closing
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.models import State

BODY_LIMIT: Final = 1 << 20
"""Bytes; the largest body that anybody needs to send has a few hundred."""
BODY_SECONDS: Final = 10.0
WAIT_SECONDS: Final = 50.0
"""The longest wait; hypeman's SDK gives an answer 60 seconds."""

_READ_TIMEOUT_SHARE: Final = 5 / 6
_LISTED: Final = 3
_QUOTED: Final = 80
_NAME_RULE: Final = "lowercase letters, digits and dashes, with a letter or digit at both ends"
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

Model = TypeVar("Model", bound=BaseModel)


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


class WaitQuery(BaseModel):
    """`GET /instances/{id}/wait`."""

    state: State
    timeout: Annotated[float, BeforeValidator(seconds_of)] = WAIT_SECONDS
    """Seconds; on the wire a Go duration."""


class LogsQuery(BaseModel):
    """`GET /instances/{id}/logs`."""

    tail: int = Field(default=100, ge=0, le=100_000)
    follow: bool = False
    source: Literal["app", "vmm", "hypeman"] = "app"


class DeleteQuery(BaseModel):
    """`DELETE /instances/{id}`; an unknown field may have been meant to hold it back, and is not passed over."""

    model_config = ConfigDict(extra="forbid")

    cascade: bool = False
    """Delete the whole tree from the instance down."""
    dry_run: bool = False
    """Answer with the plan, and delete nothing."""


class ListQuery(BaseModel):
    """`GET /instances`."""

    state: State | None = None


class MemoryQuery(BaseModel):
    """`GET /instances/{id}/memory`."""

    width: int = Field(default=64, ge=1, le=65_536)


def parse_query(request: web.Request, model: type[Model]) -> Model:
    """Return the request's query as the model; raises BadRequestError."""
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise _refusal(error) from error


async def parse_body(request: web.Request, model: type[Model], closing: Closing) -> Model:
    """Return the request's JSON body as the model, an empty one as `{}`.

    Raises BadRequestError, BodyTooLargeError or UnsupportedMediaTypeError.
    """
    body = await _read(request, closing)
    if body and "Content-Type" in request.headers and request.content_type != JSON:
        quoted = request.content_type[:_QUOTED]
        raise UnsupportedMediaTypeError(f"the body is {quoted!r}, and only {JSON} is read; set Content-Type: {JSON}")
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise _refusal(error) from error


async def _read(request: web.Request, closing: Closing) -> bytes:
    if (request.content_length or 0) > BODY_LIMIT:
        raise _too_large()
    try:
        async with closing.bound(BODY_SECONDS):
            return (await request.read()).strip()
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large() from error
    except TimeoutError as error:
        raise BadRequestError(f"the body did not arrive within {BODY_SECONDS:.0f} s; send it whole") from error
    except (ConnectionError, ClientPayloadError, web.RequestPayloadError) as error:
        raise BadRequestError("the body ended before its announced length; send it whole") from error


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


def _refusal(error: ValidationError) -> BadRequestError:
    """Return one line that names the fields and says what they may be; the details have a line for each."""
    reasons = [_explain(problem) for problem in error.errors(include_url=False, include_context=True)]
    more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
    details = [{"code": BadRequestError.code, "message": reason} for reason in reasons]
    return BadRequestError("; ".join(reasons[:_LISTED]) + more, details if len(details) > 1 else ())


def _explain(problem: ErrorDetails) -> str:
    kind = problem["type"]
    if kind == "json_invalid":
        return problem["msg"].replace("Invalid JSON", "the body is not JSON", 1)
    field = ".".join(str(part) for part in problem["loc"])
    if not field:
        return "the body is not a JSON object; send fields in braces"
    if kind == "missing":
        return f"{field} is missing; it is required"
    if kind == "extra_forbidden":
        return f"{field} is not known here; leave it out"
    quoted = _quote(problem["input"])
    if kind == "string_pattern_mismatch":
        return f"{field} {quoted} is refused: it takes {_NAME_RULE}"
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return f"{field} {quoted} is refused: {reason}"


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."
