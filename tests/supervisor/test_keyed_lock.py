"""Locks by key: whoever holds one has it alone, in the order of asking, and nothing of it stays behind."""

import asyncio

import pytest

from supervisor.concurrency.keyed_lock import KeyedLock


async def test_one_at_a_time_for_each_key_in_the_order_of_asking() -> None:
    locks, order, inside = KeyedLock(), list[int](), 0

    async def user(number: int) -> None:
        nonlocal inside
        async with locks.hold("one"):
            inside += 1
            assert inside == 1
            order.append(number)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*map(user, range(20)))
    assert order == list(range(20))
    assert len(locks) == 0


async def test_other_keys_are_not_waited_for() -> None:
    locks = KeyedLock()
    async with locks.hold("one"), asyncio.timeout(5), locks.hold("two"):
        assert len(locks) == 2
    assert len(locks) == 0


@pytest.mark.parametrize("cancelled", range(3))
async def test_who_waits_in_vain_or_fails_leaves_nothing(cancelled: int) -> None:
    locks, begun = KeyedLock(), asyncio.Event()

    async def fail() -> None:
        async with locks.hold("one"):
            begun.set()
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(fail()) for _ in range(3)]
    await begun.wait()
    tasks[cancelled].cancel()
    await asyncio.wait((tasks[cancelled],))
    assert len(locks) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(locks) == 0
    async with asyncio.timeout(5), locks.hold("one"):
        pass
