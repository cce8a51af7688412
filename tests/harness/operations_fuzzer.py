"""Random operations by concurrent clients on one supervisor, seeded, and what must hold after each of them.

A new verb is a method `_<verb>` of `Fuzzer`, which returns what is remembered of it, and a weight in `EVERYTHING`.
`FITTING` has the states that it is mostly done in, where `ALLOWED_FROM` does not say so by the same name.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.uploads import whole_file
from supervisor.guests.boot import kernel_path
from supervisor.models import (
    AcceptRequest,
    BuildImageRequest,
    CheckpointRequest,
    CreateRequest,
    Event,
    FanOutRequest,
    ForkRequest,
    HostSnapshot,
    Instance,
    InstanceChanged,
    Reset,
    State,
    Statistics,
    Template,
)
from supervisor.rules.lifecycle import ALLOWED_FROM
from tests.harness.host_invariants import broken_at_rest, broken_instance, broken_tree, corrupt_guests
from tests.harness.jails import until_jails_are_gone
from tests.harness.supervisor_process import Home, RunningSupervisor, applied, supervisor, until

PATIENCE: Final = 120.0
"""Seconds that any one operation may take while fifteen others run on a busy machine."""
ROUND: Final = 2
"""Operations of each client between two moments of rest."""
REMEMBERED: Final = 4096
"""How many events back the host as it was is kept."""
REFUSALS: Final = frozenset(
    {"cancelled", "bad_request", "not_found", "name_conflict", "invalid_state", "insufficient_resources"}
)
FITTING: Final = {str(verb): states for verb, states in ALLOWED_FROM.items()} | {
    "fork": frozenset({State.STANDBY, State.STOPPED}),
    "fork_from_running": frozenset({State.RUNNING}),
    "fan_out": frozenset({State.STANDBY}),
    "estimate": frozenset({State.STANDBY}),
}
NEWEST: Final = 3
SMALL: Final = ("hot_mib=1", "passes=2")
SIZE: Final = "40MB"
READINESSES: Final = (None, "console:^restored", "console:never", "tcp:127.0.0.1:1")


@dataclass(frozen=True)
class Mix:
    """What is done how often, and to how many instances."""

    weights: Mapping[str, int]
    sources: int
    """How many instances are made first."""
    limit: int
    """Above so many instances, only what makes them fewer is done."""


EVERYTHING: Final = Mix(
    {
        "create": 4, "fork": 14, "fork_from_running": 4, "fan_out": 4, "checkpoint": 5, "standby": 9, "restore": 8,
        "start": 3, "stop": 4, "detach": 5, "accept": 3, "delete": 8, "cascade": 1, "cancel": 4, "plan": 3,
        "estimate": 2, "look": 4, "image": 2,
    },
    sources=4,
    limit=40,
)  # fmt: skip
ONE_SOURCE: Final = Mix({"fork": 10, "delete_fork": 14, "restore": 8, "standby": 6}, sources=1, limit=5)


async def nothing() -> None:
    """Disturb nobody."""


@dataclass
class Fuzzer:
    """The clients of one supervisor; whatever breaks a rule is collected in `broken`."""

    home: Home
    running: RunningSupervisor
    seed: int
    mix: Mix
    broken: list[str] = field(default_factory=list)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    history: list[str] = field(default_factory=list)
    """What was done, and what came of it, in the order of the answers."""
    spared: frozenset[str] = frozenset()
    """The names of the instances that nothing is done to."""
    excused: set[str] = field(default_factory=set)
    """The codes of failures that are explained by what was killed."""
    after_each: Callable[[], Awaitable[None]] = nothing
    """Called after each operation by the client that did it."""

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self._told: deque[tuple[int, HostSnapshot]] = deque(maxlen=REMEMBERED)
        self._progress = asyncio.Condition()
        self._lost = False

    async def run(self, operations: int, clients: int) -> None:
        """Do so many operations by so many clients, and look whenever all of them are done with a round."""
        async with self.following():
            chance = random.Random(self.seed)
            await self.boot_sources()
            chances = [random.Random(chance.random()) for _ in range(clients)]
            left = operations
            while left > 0 and not self.broken:
                share = min(left, ROUND * clients)
                left -= share
                await asyncio.gather(*self.clients(share, chances))
                host = await self._snapshot()
                await until_jails_are_gone(self.home, host)
                self.broken += broken_at_rest(self.home, host)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the events of the supervisor that runs while the context lasts, which clients rely on.

        Raises SupervisorUnreachableError at its end where that supervisor has gone.
        """
        self._told.clear()
        self._lost = False
        follower = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower

    async def boot_sources(self) -> None:
        """Make the first instances."""
        names = [f"source-{number}" for number in range(self.mix.sources)]
        await asyncio.gather(*(self._boot(self.running.client, name) for name in names))

    def clients(self, operations: int, chances: Sequence[random.Random]) -> list[Awaitable[None]]:
        """Return the work of one client for each of `chances`, who share so many operations."""
        shares = [len(range(number, operations, len(chances))) for number in range(len(chances))]
        return list(map(self._client, chances, shares))

    async def _client(self, chance: random.Random, share: int) -> None:
        async with SupervisorClient(self.home.socket) as client:
            for _ in range(share):
                await self._operation(chance, client)
                await self._compare(client)
                await self.after_each()

    async def _compare(self, client: SupervisorClient) -> None:
        """Look at the host of this moment, and whether who followed the events knows the same."""
        async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
            event_id, event = await anext(events)
            assert isinstance(event, Reset)
            number = _number(event_id)
            async with self._progress:
                await self._progress.wait_for(lambda: self._lost or (self._told and self._told[-1][0] >= number))
        if self._lost:
            return
        told = next(host for known, host in reversed(self._told) if known <= number)
        self.broken += broken_tree(event.snapshot.instances, event.snapshot.templates)
        for here, there in ((event.snapshot.instances, told.instances), (event.snapshot.templates, told.templates)):
            now, followed = set(map(_as_told, here)), set(map(_as_told, there))
            if now != followed:
                self.broken.append(f"event {number}: the host has {now - followed}, and was told {followed - now}")

    async def _operation(self, chance: random.Random, client: SupervisorClient) -> None:
        instances = [one for one in await client.instances() if one.name not in self.spared]
        weights = self.mix.weights
        if len(instances) > self.mix.limit:
            weights = {name: weight for name, weight in weights.items() if name.startswith(("delete", "cascade"))}
        name = chance.choices(list(weights), list(weights.values()))[0]
        if name == "delete_fork" and len(instances) == 1:
            name = "fork"
        operation: Callable[..., Awaitable[str]] = getattr(self, f"_{name}")
        try:
            async with asyncio.timeout(PATIENCE):
                if name == "create" or not instances:
                    said = await self._create(chance, client)
                else:
                    said = await operation(chance, client, self._choose(chance, name, instances))
        except ApiError as error:
            said = f"{error.code}: {error.message}"
            self._judge(name, error.status, error.code, error.message)
            self.outcomes[name, error.code] += 1
        except SupervisorUnreachableError:
            self.outcomes[name, "cut off"] += 1
            raise
        except TimeoutError:
            said = f"no answer in {PATIENCE:.0f} s"
            self.broken.append(f"{name}: {said}")
        else:
            self.outcomes[name, "done"] += 1
        self.history.append(f"{name}: {said}")

    def _choose(self, chance: random.Random, name: str, instances: list[Instance]) -> Instance:
        """Return an instance to do it to: mostly one in a fitting state, and often one of the newest."""
        if self.mix.sources == 1:
            return chance.choice(instances[1:]) if name == "delete_fork" else instances[0]
        fitting = [one for one in instances if one.state in FITTING.get(name, State)]
        pool = fitting if fitting and chance.random() < 0.7 else instances
        return chance.choice(pool[-NEWEST:] if chance.random() < 0.5 else pool)

    def _judge(self, name: str, status: int, code: str, message: str) -> None:
        refused = (400 <= status < 500 and code in REFUSALS) or code in self.excused
        if not refused or not message or "\n" in message:
            self.broken.append(f"{name}: answered {status} {code}: {message}")

    async def _follow(self) -> None:
        """Apply every event, and look at each."""
        known: HostSnapshot | None = None
        try:
            async with aclosing(self.running.client.events()) as events:
                async for event_id, event in events:
                    known = applied(known, event)
                    self._look_at(event)
                    async with self._progress:
                        self._told.append((_number(event_id), known))
                        self._progress.notify_all()
        finally:
            async with self._progress:
                self._lost = True
                self._progress.notify_all()

    def _look_at(self, event: Event) -> None:
        match event:
            case InstanceChanged():
                self.broken += broken_instance(event.instance)
            case Statistics():
                self.broken += corrupt_guests(event.instances)

    async def _snapshot(self) -> HostSnapshot:
        """Return the host once no guest boots any more, which nobody has to ask for."""
        return await until(
            lambda host: all(one.state is not State.INITIALIZING for one in host.instances), self.running.client
        )

    def _name(self, chance: random.Random) -> str:
        """Return a name that is new, or now and then one that may be taken."""
        return f"vm-{chance.randrange(20)}" if chance.random() < 0.05 else f"vm-{next(self._numbers) + 100}"

    async def _create(self, chance: random.Random, client: SupervisorClient) -> str:
        return await self._boot(client, self._name(chance))

    async def _boot(self, client: SupervisorClient, name: str) -> str:
        made = CreateRequest(name=name, image="pagewalker", size=SIZE, cmd=SMALL, readiness="console:^pass 1$")
        return (await client.create(made)).name

    async def _accept(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.accept(one.id, AcceptRequest(changed=chance.random() < 0.5))).name

    async def _fork(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        request = ForkRequest(
            name=self._name(chance),
            share_memory=chance.random() < 0.75,
            target_state=chance.choice([None, "Standby", "Standby", "Stopped", "Running", "Running"]),
            memory_backend=chance.choice(["uffd", "uffd", "file"]),
            prefetch=chance.choice(["before_resume", "concurrent", "off"]),
            record=chance.choice(["auto", "on", "off"]),
            readiness=chance.choice(READINESSES),
        )
        fork = await client.fork(one.id, request)
        return f"{fork.name} of {one.name}: {fork.fork_kind} {fork.state}"

    async def _fork_from_running(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        target = chance.choice([None, "Standby", "Running", "Stopped"])
        fork = await client.fork(one.id, ForkRequest(name=self._name(chance), from_running=True, target_state=target))
        return f"{fork.name} of {one.name}: {fork.state}"

    async def _fan_out(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        request = FanOutRequest(
            count=chance.randint(1, 4),
            concurrency=chance.randint(1, 4),
            share_memory=chance.random() < 0.8,
            target_state=chance.choice(["Running", "Standby", "Stopped"]),
            memory_backend=chance.choice(["uffd", "file"]),
            readiness=chance.choice(READINESSES),
        )
        result = await client.fan_out(one.id, request)
        for child in result.children:
            if child.error is not None:
                self._judge("fan_out", 400, child.error.code, child.error.message)
        return f"of {one.name}: {[child.error.code if child.error else child.name for child in result.children]}"

    async def _checkpoint(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.checkpoint(one.id, CheckpointRequest(name=self._name(chance)))).name

    async def _standby(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.standby(one.id)).name

    async def _restore(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.restore(one.id)).name

    async def _start(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.start(one.id)).name

    async def _stop(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.stop(one.id)).name

    async def _detach(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return (await client.detach(one.id)).name

    async def _delete(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        await client.delete(one.id)
        return one.name

    _delete_fork = _delete

    async def _cascade(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        await client.delete(one.id, cascade=True)
        return one.name

    async def _cancel(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        under_way = await client.operations()
        if not under_way:
            return "nothing"
        chosen = chance.choice(under_way)
        ended = await client.cancel(chosen.id, delete_made=chosen.verb == "fan-out" and chance.random() < 0.5)
        return f"{ended.verb} of {ended.name}: {ended.outcome}"

    async def _plan(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        plan = await client.deletion_plan(one.id, cascade=chance.random() < 0.5)
        return f"{len(plan.deletions)} would go"

    async def _image(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        name = f"image-{chance.randrange(2)}"
        if chance.random() < 0.5:
            await client.remove_image(name)
            return f"{name} removed"
        made = await client.build_image(BuildImageRequest(name=name), {"kernel": whole_file(kernel_path())})
        return f"{made.name} built"

    async def _estimate(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        return f"{(await client.fan_out_estimate(one.id, FanOutRequest(count=chance.randint(1, 64)))).fits} would fit"

    async def _look(self, chance: random.Random, client: SupervisorClient, one: Instance) -> str:
        looks: list[Awaitable[object]] = [
            client.lineage(one.id), client.memory(one.id, 64), client.stats(one.id), client.logs(one.id),
            client.images(), client.wait(one.name, State.RUNNING, 0.1),
        ]  # fmt: skip
        chosen = chance.randrange(len(looks))
        for look in looks[:chosen] + looks[chosen + 1 :]:
            look.close()  # type: ignore[attr-defined]
        await looks[chosen]
        return f"{one.name}, {chosen}"


def _as_told(one: Instance | Template) -> str:
    """Return it without how far an operation is, which is told of only where that takes long."""
    return one.model_dump_json(exclude={"operation": {"step", "done", "total", "unit", "cancelled"}})


def _number(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


async def fuzz(home: Home, seed: int, mix: Mix, operations: int, clients: int) -> Fuzzer:
    """Run the fuzzer on a supervisor of its own, and delete everything at the end."""
    async with supervisor(home) as running:
        fuzzer = Fuzzer(home, running, seed, mix)
        await fuzzer.run(operations, clients)
        if not fuzzer.broken:
            for one in await running.client.instances():
                with suppress(ApiError):
                    await running.client.delete(one.id, cascade=True)
    return fuzzer
