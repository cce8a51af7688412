"""What every refusal and failure looks like."""

from typing import Annotated, Final, Self

from pydantic import BeforeValidator

from supervisor.errors import SupervisorError
from supervisor.models.base import Wire
from supervisor.remedies import Remedy

_KNOWN: Final = tuple(Remedy)


def _known(value: object) -> object:
    return value if value in _KNOWN else None


class ErrorDetail(Wire):
    """One cause among several; `id` and `name` tell which instance, where it is one.

    With a remedy the message is the cause alone, of the whole error: what would allow the request is left to be worded.
    """

    code: str = ""
    message: str = ""
    id: str | None = None
    name: str | None = None
    remedy: Annotated[Remedy | None, BeforeValidator(_known)] = None
    """None also for one that only a newer supervisor knows."""
    parameter: str = ""
    """Of the remedy, where it takes one."""


class ErrorBody(Wire):
    """What was refused or failed; the message is one sentence that says all of it, a remedy in the API's words."""

    code: str
    message: str
    details: tuple[ErrorDetail, ...] = ()

    @classmethod
    def of(cls, error: SupervisorError) -> Self:
        """Return an error as it crosses the wire: its cause with its remedy, where it has one, is the last detail."""
        details = tuple(ErrorDetail.model_validate(detail) for detail in error.details)
        if error.remedy is not None:
            cause = ErrorDetail(code=error.code, message=error.cause, remedy=error.remedy, parameter=error.parameter)
            details = (*details, cause)
        return cls(code=error.code, message=error.message, details=details)
