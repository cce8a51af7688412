"""The event bus: whatever a subscriber misses, it ends up with the host's state."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.host.event_bus import Backlog, Subscription, merge
from supervisor.models import Activity, Event, InstanceChanged, InstanceDeleted, Reset, TemplateChanged, TemplateDeleted
from tests.harness.published_host import NOW, Host, World, instance, kinds, statistics, take, take_all, template

NAMES = st.sampled_from("abcd")
COUNTS = st.integers(0, 9)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(lambda name, vcpus: InstanceChanged(instance=instance(name, vcpus)), NAMES, COUNTS),
    st.builds(lambda name: InstanceDeleted(id=name), NAMES),
    st.builds(lambda name, pages: TemplateChanged(template=template(name, pages)), NAMES, COUNTS),
    st.builds(lambda name: TemplateDeleted(id=name), NAMES),
    st.builds(statistics, st.dictionaries(NAMES, COUNTS), st.floats(0, 100)),
    st.just(Activity(at=NOW, level="info", message="something")),
)


@dataclass(frozen=True)
class Read:
    """A subscriber takes this many events."""

    count: int


class Reconnect:
    """A subscriber loses its connection and comes back with the id of the last event that it got."""


STEPS = st.lists(st.one_of(EVENTS, EVENTS, st.builds(Read, COUNTS), st.builds(Reconnect)), max_size=60)


@given(steps=STEPS, ring=st.integers(1, 12), queue=st.integers(1, 6))
def test_any_interleaving_leaves_a_subscriber_with_the_hosts_state(
    steps: list[Event | Read | Reconnect], ring: int, queue: int
) -> None:
    """Slow reads, overflows, lost connections and statistics superseded in any order change nothing of the outcome."""

    async def run() -> None:
        host = Host.make(ring, queue)
        seen = World()
        last: str | None = None
        numbers = [-1]
        subscription = await host.bus.subscribe().__aenter__()

        def receive(item: tuple[str, Event]) -> None:
            nonlocal last
            last, event = item
            seen.apply(event)
            number = int(last.partition("-")[2])
            assert number > numbers[-1] or (isinstance(event, Reset) and number == numbers[-1])
            numbers.append(number)

        for step in steps:
            if isinstance(step, Read):
                for _ in range(step.count):
                    if item := take(subscription):
                        receive(item)
            elif isinstance(step, Reconnect):
                await subscription.__aexit__(None, None, None)
                subscription = await host.bus.subscribe(last).__aenter__()
            else:
                host.publish(step)
        for item in take_all(subscription):
            receive(item)
        assert seen == host.world

    asyncio.run(run())


async def test_a_first_subscription_starts_with_the_whole_host() -> None:
    """Without an id there is nothing to resume from."""
    host = Host.make()
    host.publish(InstanceChanged(instance=instance("a")))
    async with host.bus.subscribe() as subscription:
        (event_id, event), *rest = take_all(subscription)
    assert isinstance(event, Reset)
    assert [one.id for one in event.snapshot.instances] == ["a"]
    assert event_id.endswith("-1")
    assert rest == []


async def test_an_id_resumes_after_its_event() -> None:
    """What was published before it is not repeated, what came after is not lost."""
    host = Host.make()
    async with host.bus.subscribe() as subscription:
        host.publish(*(InstanceChanged(instance=instance(name)) for name in "abc"))
        reset = take(subscription)
        assert reset is not None
        host.publish(*(InstanceChanged(instance=instance(name)) for name in "defg"))
        taken = take_all(subscription)
    async with host.bus.subscribe(taken[1][0]) as resumed:
        assert take_all(resumed) == taken[2:]
    async with host.bus.subscribe(taken[-1][0]) as resumed:
        assert take_all(resumed) == []


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "x",
        "-",
        "-1",
        "{epoch}",
        "{epoch}-",
        "{epoch}--1",
        "{epoch}-9",
        "{epoch}-٣",
        "0-1",
        "{epoch}-1\n",
        "7" * 9999,
    ],
)
async def test_an_id_of_another_epoch_or_of_nothing_is_reset(garbage: str) -> None:
    """An id that this bus never gave says nothing about what its sender knows."""
    host = Host.make()
    host.publish(*(InstanceChanged(instance=instance(name)) for name in "abcd"))
    async with host.bus.subscribe() as subscription:
        first = take(subscription)
    assert first is not None
    epoch = first[0].partition("-")[0]
    async with host.bus.subscribe(garbage.replace("{epoch}", epoch)) as subscription:
        assert kinds(take_all(subscription)) == ["reset"]


async def test_two_buses_have_two_epochs() -> None:
    """A restarted supervisor counts from the start again, which must not pass for a continuation."""
    before, after = Host.make(), Host.make()
    for host in (before, after):
        host.publish(InstanceChanged(instance=instance("a")))
    async with before.bus.subscribe() as subscription:
        item = take(subscription)
    assert item is not None
    async with after.bus.subscribe(item[0]) as subscription:
        assert kinds(take_all(subscription)) == ["reset"]


async def test_a_gap_is_reset_and_statistics_make_none() -> None:
    """The ring counts changes; statistics, which come several times a second for ever, are superseded in it."""
    host = Host.make(ring=2)
    async with host.bus.subscribe() as subscription:
        take_all(subscription)
        host.publish(InstanceChanged(instance=instance("a")))
        ((event_id, _),) = take_all(subscription)
    host.publish(*(statistics({"a": count}) for count in range(100)))
    host.publish(InstanceChanged(instance=instance("b")), InstanceChanged(instance=instance("c")))
    async with host.bus.subscribe(event_id) as resumed:
        taken = take_all(resumed)
    assert kinds(taken) == ["statistics", "instance", "instance"]
    assert taken[0][1] == statistics({"a": 99})
    host.publish(InstanceChanged(instance=instance("d")))
    async with host.bus.subscribe(event_id) as resumed:
        assert kinds(take_all(resumed)) == ["reset"]


async def test_changes_are_kept_for_a_slow_subscriber_and_statistics_are_merged() -> None:
    """It gets every change in order, and the newest counters of every instance once."""
    host = Host.make(queue=4)
    async with host.bus.subscribe() as slow:
        take_all(slow)
        host.publish(
            InstanceChanged(instance=instance("a")),
            statistics({"a": 1, "b": 1}),
            InstanceChanged(instance=instance("b")),
            statistics({"b": 2}, cpu=50.0),
            InstanceDeleted(id="a"),
        )
        taken = take_all(slow)
    assert kinds(taken) == ["instance", "instance", "statistics", "instance_deleted"]
    assert taken[2][1] == statistics({"b": 2}, cpu=50.0)


async def test_a_subscriber_too_slow_is_reset_and_nobody_else_is() -> None:
    """Its queue overflows; a quick one beside it gets every event."""
    host = Host.make(queue=3)
    async with host.bus.subscribe() as slow, host.bus.subscribe() as quick:
        take_all(slow), take_all(quick)
        got = []
        for vcpus in range(10):
            host.publish(InstanceChanged(instance=instance("a", vcpus)))
            got += take_all(quick)
        assert kinds(got) == ["instance"] * 10
        (_, event), *rest = take_all(slow)
        assert isinstance(event, Reset)
        assert event.snapshot.instances[0].vcpus == 9
        assert rest == []
        host.publish(InstanceDeleted(id="a"))
        assert kinds(take_all(slow)) == ["instance_deleted"]


async def test_a_subscriber_that_waits_is_woken() -> None:
    """It does not poll."""
    host = Host.make()
    async with host.bus.subscribe() as subscription:
        take_all(subscription)
        asyncio.get_running_loop().call_later(0.01, host.publish, InstanceDeleted(id="a"))
        _, event = await asyncio.wait_for(anext(subscription), 5)
    assert event == InstanceDeleted(id="a")


async def test_close_ends_subscriptions_after_what_is_queued() -> None:
    """A waiting one ends at once, one behind gets the rest, and later ones have nothing."""
    host = Host.make()
    async with host.bus.subscribe() as waiting, host.bus.subscribe() as behind:
        take_all(waiting), take_all(behind)
        host.publish(InstanceDeleted(id="a"))
        take_all(waiting)
        ended = asyncio.ensure_future(collect(waiting))
        host.bus.close()
        host.publish(InstanceDeleted(id="b"))
        assert await asyncio.wait_for(ended, 5) == []
        assert await asyncio.wait_for(collect(behind), 5) == ["instance_deleted"]
    async with host.bus.subscribe() as late:
        assert await asyncio.wait_for(collect(late), 5) == []


async def collect(subscription: Subscription) -> list[str]:
    """Return the types of all events until the subscription ends."""
    return [event.type async for _, event in subscription]


def test_merge_keeps_the_union_and_the_newest() -> None:
    """The newer event's counters, time and host win."""
    older, newer = statistics({"a": 1, "b": 1}, cpu=1.0), statistics({"b": 2, "c": 2}, cpu=2.0)
    assert merge(older, newer) == statistics({"a": 1, "b": 2, "c": 2}, cpu=2.0)


def test_a_backlog_pops_in_order_of_numbers() -> None:
    """Superseded statistics move to where the newest are."""
    backlog = Backlog()
    backlog.append(1, statistics({"a": 1}))
    backlog.append(2, InstanceDeleted(id="x"))
    backlog.append(3, statistics({"b": 1}))
    backlog.append(4, InstanceDeleted(id="y"))
    assert len(backlog) == 3
    assert [backlog.pop()[0] for _ in range(3)] == [2, 3, 4]
    with pytest.raises(IndexError):
        backlog.pop()


async def test_having_missed_more_than_a_queue_holds_is_reset() -> None:
    """The ring may remember more than a subscriber may be behind."""
    host = Host.make(ring=10, queue=2)
    async with host.bus.subscribe() as subscription:
        ((event_id, _),) = take_all(subscription)
    host.publish(InstanceChanged(instance=instance("a")), InstanceChanged(instance=instance("b")))
    async with host.bus.subscribe(event_id) as subscription:
        assert kinds(take_all(subscription)) == ["instance", "instance"]
    host.publish(InstanceChanged(instance=instance("c")))
    async with host.bus.subscribe(event_id) as subscription:
        assert kinds(take_all(subscription)) == ["reset"]
