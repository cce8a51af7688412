"""A fan-out is told of from its beginning to its end, and after that to who begins to listen."""

import asyncio
from contextlib import aclosing

from forktui.client.api import SupervisorClient
from supervisor.concurrency import progress
from supervisor.models import Event, FanOutChanged, FanOutEstimate, FanOutProgress, FanOutRequest, InstanceChanged
from supervisor.models.errors import ErrorBody
from supervisor.operations.shown_fan_outs import FAILURES_TOLD, KEPT, ShownFanOuts
from tests.harness.supervisor_process import PATIENCE, Home, supervisor
from tests.harness.verified_guests import standby_source
from tests.harness.waiting import until

ESTIMATE = FanOutEstimate(count=3, fits=400, limiting="memory", resources=())
FAILED = ErrorBody(code="internal", message="it broke")


async def told(client: SupervisorClient, request: FanOutRequest) -> tuple[list[FanOutProgress], list[Event]]:
    """What is told of a fan-out of the source, and all events until its end."""
    found: list[FanOutProgress] = []
    heard: list[Event] = []
    asked = None
    async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
        async for _, event in events:
            asked = asked or asyncio.create_task(client.fan_out("source", request))
            heard.append(event)
            if isinstance(event, FanOutChanged):
                found.append(event.fan_out)
                if event.fan_out.operation.outcome is not None:
                    break
    assert asked is not None
    await asked
    return found, heard


async def test_a_fan_out_is_told_of_to_its_end_and_its_forks_as_its_parts(home: Home) -> None:
    async with supervisor(home) as running:
        source = await standby_source(running.client, "source", "hot_mib=1", "passes=0")
        found, heard = await told(running.client, FanOutRequest(count=4, concurrency=2, name_prefix="vm"))
        first, last = found[0], found[-1]
        assert (first.operation.done, first.operation.total, first.operation.outcome) == (0, 4, None)
        assert (first.operation.instance_id, first.operation.name, first.concurrency) == (source.id, "source", 2)
        assert first.fits is not None and first.fits >= 4
        assert (last.operation.done, last.operation.outcome, last.failed) == (4, "done", 0)
        assert last.milliseconds > first.milliseconds
        parts = [
            event.instance
            for event in heard
            if isinstance(event, InstanceChanged)
            and event.instance.operation is not None
            and event.instance.operation.part_of == last.operation.id
        ]
        assert {one.name for one in parts} == {"vm-1", "vm-2", "vm-3", "vm-4"}
        assert all(one.operation is not None and one.operation.since is not None for one in parts)
        assert (await running.client.snapshot()).fan_outs == (last,)


async def test_one_that_is_cancelled_is_told_as_that_and_what_it_left_out_has_not_failed(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=1", "passes=0")
        asked = asyncio.create_task(client.fan_out("source", FanOutRequest(count=400, concurrency=2)))
        async with asyncio.timeout(PATIENCE):
            while not (shown := (await client.snapshot()).fan_outs) or shown[0].operation.done < 2:
                pass
        await client.cancel(shown[0].operation.id)
        await asked
        (ended,) = (await client.snapshot()).fan_outs
        assert (ended.operation.outcome, ended.failed) == ("cancelled", 0)
        assert 2 <= ended.operation.done < 400
        assert "asked for that" in (ended.operation.cancelled or "")


async def test_what_is_new_is_told_some_times_a_second_and_what_failed_by_its_first_causes() -> None:
    published: list[Event] = []
    shown = ShownFanOuts(published.append)
    with shown.showing(ESTIMATE, 8) as one, progress.operation("fan-out", "id", "source") as operation:
        operation.total = 20
        shown.begin(one, operation)
        assert len(published) == 1
        for number in range(FAILURES_TOLD + 3):
            one.fail(f"vm-{number}", FAILED)
        operation.done = 1
        await until(lambda: len(published) == 2)
    assert len(published) == 3
    (kept,) = shown()
    assert (kept.failed, len(kept.failures), kept.failures[0].name) == (FAILURES_TOLD + 3, FAILURES_TOLD, "vm-0")
    assert (kept.operation.done, kept.operation.outcome, kept.limiting) == (1, "done", "memory")


async def test_only_the_last_ones_are_kept_and_none_that_goes_on_is_forgotten() -> None:
    shown = ShownFanOuts(lambda event: None)
    with shown.showing(ESTIMATE, 8) as long, progress.operation("fan-out", "id", "long") as operation:
        shown.begin(long, operation)
        for number in range(KEPT + 4):
            with shown.showing(ESTIMATE, 8) as one, progress.operation("fan-out", "id", f"s{number}") as other:
                shown.begin(one, other)
        names = [one.operation.name for one in shown()]
        assert names[0] == "long" and names[-1] == f"s{KEPT + 3}"
        assert len(names) <= KEPT + 2


async def test_one_that_is_refused_before_it_begins_is_not_told_of() -> None:
    published: list[Event] = []
    shown = ShownFanOuts(published.append)
    with shown.showing(ESTIMATE, 8):
        pass
    assert (published, shown()) == ([], ())
