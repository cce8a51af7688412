"""What comes in: bodies and queries, checked against models and explained in one line where they are refused."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Final, Literal, TypeVar

from aiohttp import ClientPayloadError, web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from supervisor.api.answers import JSON
from supervisor.api.closing import Closing
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.models import State, explain, quoted

BODY_LIMIT: Final = 1 << 20
"""Bytes; the largest body that anybody needs to send has a few hundred."""
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


class CancelQuery(BaseModel):
    """`DELETE /operations/{id}`."""

    model_config = ConfigDict(extra="forbid")

    made: Literal["keep", "delete"] = "keep"
    """What becomes of the forks that a fan-out has made by then."""


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
        found = quoted(request.content_type)
        raise UnsupportedMediaTypeError(f"the body is {found}, and only {JSON} is read; set Content-Type: {JSON}")
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
    reasons = [explain(problem, "the body") for problem in error.errors(include_url=False, include_context=True)]
    more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
    details = [{"code": BadRequestError.code, "message": reason} for reason in reasons]
    return BadRequestError("; ".join(reasons[:_LISTED]) + more, details if len(details) > 1 else ())
