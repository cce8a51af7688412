"""What the dashboard says of what a supervisor refuses: the cause as it is told, and a key that would allow it."""

from pathlib import Path

from forktui.actions.deletion import DELETE
from forktui.actions.forks import FAN_OUT
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from supervisor.errors import InvalidStateError, SupervisorError
from supervisor.models import ErrorBody, FanOutChild, FanOutRequest, FanOutResult, Remedy
from tests.harness.told_hosts import family, world_of

LOCKED = InvalidStateError("source: delete refused: mem_locked by 1 share_memory fork (a)", remedy=Remedy.CASCADE)
MANY = InvalidStateError("source: fork refused: \x1b[2J it is Running", remedy=Remedy.FROM_RUNNING)


class Refusing(SupervisorClient):
    """Refuses what it is asked for."""

    def __init__(self, error: SupervisorError | None) -> None:
        super().__init__(Path("/socket"))
        self._error = error

    async def delete(self, reference: str, *, cascade: bool = False) -> None:
        if self._error is None:
            raise SupervisorUnreachableError("/socket: nobody is there")
        body = ErrorBody.of(self._error)
        raise ApiError(self._error.status, body.code, body.message, body.details)

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        assert self._error is not None
        child = FanOutChild(name="source-1", error=ErrorBody.of(self._error))
        return FanOutResult(children=(child,), milliseconds=1)


async def test_a_refusal_is_told_with_the_key_that_would_allow_it() -> None:
    outcome = await DELETE.do(Refusing(LOCKED), world_of(*family()), ["source"], {})
    assert outcome.failures == (f"{LOCKED.cause}, or press d on it alone to delete the whole tree",)


async def test_a_child_that_was_not_made_is_told_so_too_and_as_safe_text() -> None:
    outcome = await FAN_OUT.do(Refusing(MANY), world_of(*family()), ["source"], {"count": "1"})
    assert outcome.failures == ("source-1: source: fork refused: �[2J it is Running, or press f for a copy",)


async def test_a_supervisor_that_is_not_there_is_told_as_it_is() -> None:
    outcome = await DELETE.do(Refusing(None), world_of(*family()), ["source"], {})
    assert outcome.failures == ("/socket: nobody is there",)
