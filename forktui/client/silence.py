"""A supervisor that says nothing: for how long it is waited for, and what can be told of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from supervisor.system.processes import stat_fields

ASK_SECONDS: Final = 5.0
"""Of silence, before the supervisor is asked whether it answers at all."""
ANSWER_SECONDS: Final = 5.0
"""In which a supervisor says on another connection that it is there; it does nothing for that."""


@dataclass(frozen=True)
class Patience:
    """For how long a step of a request is waited for, in seconds."""

    silent: float
    """While the supervisor answers nothing else either; it is asked every ASK_SECONDS, and once at least."""
    answering: float | None
    """While it answers others; None for what may take any time."""


READ: Final = Patience(0.0, 60.0)
VERB: Final = Patience(60.0, None)
"""A fan-out, a snapshot, a wait or a guest that prints nothing may take hours, as long as the supervisor is there."""

_STATES: Final = {
    "T": "it is stopped; `kill -CONT {pid}` lets it go on",
    "t": "a debugger holds it",
    "D": "it waits in the kernel, as for a disk that does not answer",
}
"""What /proc/<pid>/stat says of a process that cannot answer: proc_pid_stat(5)."""


class SilentError(Exception):
    """Patience is over; the message says for how long nothing came, and why as far as that is known."""


class Vigil:
    """Watches over the steps of one request: each gives up where the supervisor shows no life.

    `asks` returns whether the supervisor answers another connection, and `pid` which process listens, 0 where that is
    not known. `alive` is called when it does, `silent` with a line when it does not, once until it does again.
    """

    def __init__(
        self,
        patience: Patience,
        asks: Callable[[], Awaitable[bool]],
        pid: Callable[[], int],
        alive: Callable[[], object],
        silent: Callable[[str], object],
    ) -> None:
        self._patience = patience
        self._asks = asks
        self._pid = pid
        self._alive = alive
        self._silent = silent
        self._answers = True
        self._since = 0.0
        """When it showed life last, in seconds of the loop's clock."""

    @asynccontextmanager
    async def step(self) -> AsyncIterator[None]:
        """Wait for what is awaited in the body; raises SilentError."""
        loop = asyncio.get_running_loop()
        began = self._since = loop.time()
        try:
            async with asyncio.timeout(self._patience.answering) as bound:
                watching = asyncio.create_task(self._watch(bound))
                try:
                    yield
                    self._answers = True
                finally:
                    watching.cancel()
        except TimeoutError as error:
            if self._answers and self._since > began:
                seconds = f"{loop.time() - began:.0f} s"
                raise SilentError(f"nothing came for {seconds}, though the supervisor answers others") from error
            raise SilentError(self._line()) from error

    async def _watch(self, bound: asyncio.Timeout) -> None:
        while True:
            await asyncio.sleep(ASK_SECONDS)
            # One that is stopped need not be asked.
            stopped = state_of(self._pid()) == "T"
            answers = not stopped and await self._asks()
            if answers:
                self._since = asyncio.get_running_loop().time()
                self._alive()
            elif asyncio.get_running_loop().time() - self._since >= self._patience.silent:
                self._answers = False
                bound.reschedule(asyncio.get_running_loop().time())
                return
            elif self._answers:
                self._silent(self._line())
            self._answers = answers

    def _line(self) -> str:
        return no_answer(self._pid(), asyncio.get_running_loop().time() - self._since)


def no_answer(pid: int, seconds: float) -> str:
    """Return one line on a supervisor that has not answered for this long."""
    why = _STATES.get(state_of(pid), "look whether it is busy, or hangs").format(pid=pid)
    return f"the supervisor{f' (pid {pid})' if pid else ''} has not answered for {seconds:.0f} s: {why}"


def state_of(pid: int) -> str:
    """Return the state of a process as /proc has it, such as S, R, T or D; empty where that is not known."""
    try:
        return stat_fields(pid)[0].decode()
    except (OSError, ValueError):
        return ""
