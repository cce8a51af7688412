"""The fuzzer for a long time, in rounds: clients and kills, then rest, where the host must be whole.

At the end of a round all is deleted but one source and one fork of it, and what there is then makes a row of figures.
"""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from enum import StrEnum
from pathlib import Path
from signal import SIGKILL, SIGTERM
from types import TracebackType
from typing import Final, Self

import psutil

from forktui.client.api import ApiError, SupervisorUnreachableError
from supervisor.models import FanOutRequest, ForkRequest, HostSnapshot, State
from tests.harness.census import census
from tests.harness.growth import Row
from tests.harness.host_invariants import broken_at_rest
from tests.harness.operations_fuzzer import EVERYTHING, Fuzzer, Mix
from tests.harness.supervisor_process import (
    Home,
    RunningSupervisor,
    console_holder,
    find,
    guest,
    sample,
    supervisor,
    until,
)
from tests.harness.verified_guests import standby_source
from tests.harness.wholeness import quiet, whole

OPERATIONS: Final = 12
"""Of each client between two moments of rest."""
KILLS_A_ROUND: Final = 2
FORKS: Final = 4
"""Forks of the source that is never deleted, made for each round."""
SOURCE, FORK = "kept", "kept-fork"
"""Nothing is done to these, so that one page server has a fork for ever."""
MIX: Final = Mix(EVERYTHING.weights, sources=2, limit=24)
SHOWN: Final = 8
"""Of what was found broken: one wrong thing is seen by many looks."""


class Kill(StrEnum):
    """What is done to a process, and the column that counts it."""

    SUPERVISOR = "killed supervisors"
    STOP = "stopped supervisors"
    PAGE_SERVER = "killed page servers"
    VMM = "killed VMMs"
    CONSOLE_HOLDER = "killed console holders"


OF_WORKERS: Final = (Kill.PAGE_SERVER, Kill.VMM, Kill.CONSOLE_HOLDER)
FAILS_WITH_THEM: Final = frozenset({"page_server_failed", "vmm_failed"})
"""The codes of failures that are no fault of the supervisor's in a round of such a kill."""
REFUSED_BY_ONE_THAT_ENDS: Final = frozenset({"stopping"})
CUT_OFF_BY: Final = frozenset({Kill.SUPERVISOR, Kill.STOP})


class Soak:
    """An async context manager: a supervisor runs in `home` while it lasts, though not always the same."""

    def __init__(self, home: Home, seed: int, clients: int) -> None:
        self.home = home
        self.kills: Counter[Kill] = Counter()
        self._seed = seed
        self._chance = random.Random(seed)
        self._chances = [random.Random(self._chance.random()) for _ in range(clients)]
        self._killed: set[Kill] = set()
        """In the present round."""
        self._due: list[tuple[int, Kill]] = []
        """After how many operations what is killed, the next one last."""
        self._deck: list[Kill] = []
        self._calm = False
        self._log_read = 0

    async def __aenter__(self) -> Self:
        self._began = time.monotonic()
        self._life = AsyncExitStack()
        running = await self._life.enter_async_context(supervisor(self.home))
        self._fuzzer = Fuzzer(
            self.home, running, self._seed, MIX, spared=frozenset({SOURCE, FORK}), after_each=self._kill_what_is_due
        )
        try:
            await standby_source(running.client, SOURCE, "hot_mib=1", "passes=2")
            await running.client.fork(SOURCE, ForkRequest(name=FORK, share_memory=True, target_state="Running"))
        except BaseException:
            await self._life.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._running.client.delete(SOURCE, cascade=True)
        finally:
            await self._life.aclose()

    @property
    def outcomes(self) -> Counter[tuple[str, str]]:
        """How often which operation had which end."""
        return self._fuzzer.outcomes

    @property
    def minutes(self) -> float:
        """Since the first supervisor was started."""
        return (time.monotonic() - self._began) / 60

    @property
    def _running(self) -> RunningSupervisor:
        return self._fuzzer.running

    async def restart(self) -> None:
        """Have a new supervisor in place of the one that runs or ran."""
        self.kills[Kill.STOP] += self._running.process.returncode is None
        await self._life.aclose()
        self._fuzzer.running = await self._life.enter_async_context(supervisor(self.home))

    async def round(self, *, calm: bool = False) -> Row:
        """Do what there is to do between two moments of rest and return what there is then; `calm` kills no supervisor.

        AssertionError where anything is wrong.
        """
        fuzzer, operations = self._fuzzer, OPERATIONS * len(self._chances)
        self._calm = calm
        self._killed.clear()
        fuzzer.excused.clear()
        fuzzer.history.clear()
        self._due = self._dealt(operations)
        await self._running.client.fan_out(SOURCE, FanOutRequest(count=FORKS))
        await fuzzer.boot_sources()
        while len(fuzzer.history) < operations and not fuzzer.broken:
            await self._one_life(operations - len(fuzzer.history))
        await self._rest()
        await self._delete_all()
        return await self._row()

    def _dealt(self, operations: int) -> list[tuple[int, Kill]]:
        """Return what is killed in a round; each kind comes up as often as the others."""
        moments = sorted(self._chance.sample(range(1, operations), KILLS_A_ROUND), reverse=True)
        if not self._calm and len(self._deck) < KILLS_A_ROUND:
            self._deck = self._chance.sample(list(Kill), len(Kill))
        kinds = [self._chance.choice(OF_WORKERS) if self._calm else self._deck.pop() for _ in moments]
        return list(zip(moments, kinds, strict=True))

    async def _one_life(self, operations: int) -> None:
        """Have clients do so many operations, or what one supervisor lives to see of them."""
        done: list[BaseException | None] = []
        try:
            async with self._fuzzer.following():
                clients = self._fuzzer.clients(operations, self._chances)
                done += await asyncio.gather(*clients, return_exceptions=True)
        except SupervisorUnreachableError as error:
            done.append(error)
        gone = self._running.process.returncode is not None
        for failure in done:
            if failure is not None and not (gone and isinstance(failure, SupervisorUnreachableError)):
                raise failure
        if gone:
            assert not CUT_OFF_BY.isdisjoint(self._killed), f"the supervisor ended by itself: {self._log()[-2000:]}"
            await self.restart()

    async def _kill_what_is_due(self) -> None:
        if not self._due or len(self._fuzzer.history) < self._due[-1][0]:
            return
        _, kill = self._due.pop()
        self._killed.add(kill)
        if kill in OF_WORKERS:
            await self._kill_worker(kill)
        elif self._running.process.returncode is None:
            self.kills[kill] += 1
            if kill is Kill.STOP:
                self._fuzzer.excused |= REFUSED_BY_ONE_THAT_ENDS
            code = await self._running.end(SIGKILL if kill is Kill.SUPERVISOR else SIGTERM)
            # One that was asked to stop may be killed over it.
            assert code == 0 or Kill.SUPERVISOR in self._killed, f"asked to stop, the supervisor exited {code}"

    async def _kill_worker(self, kill: Kill) -> None:
        """Kill a VMM, a page server or the console holder, where there is one, and return once the host knows it."""
        pids = self._workers(kill, await self._running.client.snapshot())
        if not pids:
            return
        self.kills[kill] += 1
        # Before it is done: what fails by it may be answered at once.
        self._fuzzer.excused |= FAILS_WITH_THEM
        pid = self._chance.choice(pids)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
        await until(lambda host: pid not in self._workers(kill, host), self._running.client)

    def _workers(self, kill: Kill, host: HostSnapshot) -> list[int]:
        """Return the processes that may be killed; the page server that is to live long in rounds that are not calm."""
        if kill is Kill.CONSOLE_HOLDER:
            return [pid for pid in (console_holder(self.home),) if pid is not None]
        if kill is Kill.VMM:
            return [one.vmm_pid for one in host.instances if one.vmm_pid is not None and one.name != FORK]
        lasting = find(host, SOURCE) if self._calm else None
        spared = lasting.id if lasting else None
        pids = (template.page_server_pid for template in host.templates if template.instance_id != spared)
        return [pid for pid in pids if pid is not None]

    async def _rest(self) -> None:
        """Wait until nothing is in progress, and look whether all is as it should be and every guest has its memory."""
        self._look()
        broken: list[str] = []

        def at_rest(host: HostSnapshot) -> bool:
            # One that replaces a page server which was killed is there before it is known, and its forks may have gone.
            broken[:] = broken_at_rest(self.home, host) if quiet(host) else ["it is not quiet"]
            broken.extend(["there is no console holder"] if console_holder(self.home) is None else [])
            return not broken

        try:
            await until(at_rest, self._running.client)
        except TimeoutError:
            raise AssertionError("\n".join([*self._fuzzer.history, *broken[:SHOWN], self._log()[-5000:]])) from None
        names = [one.name for one in await self._running.client.instances(State.RUNNING)]
        walking: list[str] = []

        def done(host: HostSnapshot) -> bool:
            guests = {name: guest(host, name) for name in names}
            walking[:] = [name for name, one in guests.items() if not one.done and one.corrupt is None]
            return not walking

        try:
            host = await until(done, self._running.client)
        except TimeoutError:
            raise AssertionError("\n".join([*self._fuzzer.history, *map(str, await self._seen(walking))])) from None
        corrupt = [f"{name}: {guest(host, name).corrupt}" for name in names if guest(host, name).corrupt is not None]
        assert corrupt == []

    async def _seen(self, names: list[str]) -> list[object]:
        """Return what is known of these instances, the end of their consoles, and what their VMMs wait in."""
        client, host = self._running.client, await self._running.client.snapshot()
        seen: list[object] = [self._log()[-5000:]]
        for one in (one for one in host.instances if one.name in names):
            seen += [one, sample(host, one.name), *(await client.logs(one.id, tail=8))]
            seen += await asyncio.to_thread(_waits, one.vmm_pid)
        return seen

    def _look(self) -> None:
        """Raise AssertionError for what clients have found broken, and for a traceback in the supervisor's log."""
        broken = list(dict.fromkeys(self._fuzzer.broken))[:SHOWN]
        assert not broken, "\n".join([*self._fuzzer.history, *broken])
        log = self._log()
        assert "Traceback" not in log, log[max(log.index("Traceback") - 1000, 0) :][:4000]

    def _log(self) -> str:
        """Return what the supervisors have logged since this was last asked."""
        with self._running.log.open("rb") as file:
            file.seek(self._log_read)
            read = file.read()
        self._log_read += len(read)
        return read.decode(errors="replace")

    async def _delete_all(self) -> None:
        """Delete whatever was made since the beginning."""
        client = self._running.client
        for one in await client.instances():
            if one.name not in self._fuzzer.spared:
                try:
                    await client.delete(one.id, cascade=True)
                except ApiError as error:
                    assert error.code == "not_found", error.message
        await whole(self._running)
        self._look()

    async def _row(self) -> Row:
        host = await self._running.client.snapshot()
        [template] = host.templates
        return {
            "minutes": self.minutes,
            "operations": self.outcomes.total(),
            **{str(kill): self.kills[kill] for kill in Kill},
            "age": _minutes_old(host.supervisor.pid),
            "page server's age": _minutes_old(template.page_server_pid or 0),
            **await asyncio.to_thread(census, self.home, host.supervisor.pid, template),
        }


def _minutes_old(pid: int) -> float:
    return (time.time() - psutil.Process(pid).create_time()) / 60


def _waits(pid: int | None) -> list[str]:
    """Return where in the kernel each thread of a process is; proc(5)."""
    waits: list[str] = []
    for stack in Path(f"/proc/{pid}/task").glob("*/stack"):
        with suppress(OSError):
            waits.append(f"{stack}:\n{stack.read_text()}")
    return waits
