"""What goes back: models as JSON, and every refusal and failure in the one shape that errors have."""

import errno
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from supervisor.api.peer import LOGGER
from supervisor.errors import InsufficientResourcesError, SupervisorError
from supervisor.models import ErrorBody

JSON: Final = "application/json"

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def answer(model: BaseModel, status: int = HTTPStatus.OK) -> web.Response:
    """Return a model as a JSON response."""
    return web.Response(body=model.model_dump_json().encode(), content_type=JSON, status=status)


def refuse(error: SupervisorError) -> web.Response:
    """Return an error as a JSON response.

    hypeman's SDK repeats a request that got 409 or 5xx unless it is told not to, and a repeated verb is a second verb.
    """
    response = answer(ErrorBody.of(error), error.status)
    if error.status == HTTPStatus.CONFLICT or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        response.headers["X-Should-Retry"] = "false"
    return response


def as_bytes(error: SupervisorError) -> bytes:
    """Return an error as the last answer of a connection, where there is no request to answer.

    Nothing was begun: who was not let in may ask again in a second.
    """
    body = ErrorBody.of(error).model_dump_json().encode()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        f"Content-Type: {JSON}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append("Retry-After: 1")
    return "\r\n".join([*lines, "", ""]).encode() + body


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an error body; what nobody foresaw is logged and told in short."""
    try:
        return await handler(request)
    except SupervisorError as error:
        return refuse(error)
    except web.HTTPException as error:
        return _refuse_http(request, error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            what = f"{request.method} {request.rel_url.raw_path} failed"
            return refuse(InsufficientResourcesError(f"{what}: {error.strerror}; raise the limit of open files"))
        LOGGER.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return refuse(SupervisorError(f"the supervisor failed: {type(error).__name__}; its log has the details"))


def _refuse_http(request: web.Request, error: web.HTTPException) -> web.Response:
    """Return aiohttp's own refusal in our shape: an unknown route, a wrong method, a header that it rejects."""
    path = request.rel_url.raw_path
    reason = {
        404: f"there is no {path} here; the paths begin with /instances, /operations, /events, /capabilities or "
        "/health",
        405: f"{path} does not take {request.method}; it takes {error.headers.get('Allow', 'nothing')}",
    }.get(error.status, error.reason)
    code = _CODES.get(error.status, "bad_request")
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    body = ErrorBody(code=code, message=reason).model_dump_json().encode()
    return web.Response(body=body, content_type=JSON, status=error.status, headers=headers)
