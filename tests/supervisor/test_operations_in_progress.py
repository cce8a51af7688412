"""Operations are cancelled in their waits and where they look, and nowhere else."""

import asyncio
import threading

import pytest

from supervisor.concurrency import progress
from supervisor.concurrency.interruption import Interruption
from supervisor.errors import OperationCancelledError
from supervisor.models import CheckpointRequest, CreateRequest, State
from supervisor.snapshots.layers import Layers, own_snapshot
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import Home


class StrangeError(Exception):
    """What an interruption raises here."""


async def test_an_interruption_ends_the_innermost_wait_and_is_raised_as_its_error() -> None:
    undone: list[str] = []
    interruption = Interruption(StrangeError)
    asyncio.get_running_loop().call_soon(interruption.fire)
    with pytest.raises(StrangeError), interruption:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            undone.append("waits are cancelled")
            raise
    assert undone == ["waits are cancelled"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_an_interruption_after_its_body_does_nothing() -> None:
    interruption = Interruption(StrangeError)
    with interruption:
        await asyncio.sleep(0)
    interruption.fire()
    await asyncio.sleep(0)
    assert not interruption.fired


async def test_who_cancels_the_task_besides_has_that_raised() -> None:
    interruption = Interruption(StrangeError)

    async def body() -> None:
        with interruption:
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    interruption.fire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_body_is_its_own_although_it_was_interrupted() -> None:
    interruption = Interruption(StrangeError)
    asyncio.get_running_loop().call_soon(interruption.fire)
    with pytest.raises(ValueError, match="its own"), interruption:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("its own") from None


async def test_an_interruption_within_a_timeout_leaves_both_whole() -> None:
    interruption = Interruption(StrangeError)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            with interruption:
                await asyncio.Event().wait()
    assert not interruption.fired


async def test_a_cancelled_operation_ends_in_its_waits_and_not_between_them() -> None:
    done: list[str] = []
    begun: asyncio.Future[progress.Operation] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        with progress.operation("standby", "id", "web") as operation:
            begun.set_result(operation)
            await asyncio.sleep(0)
            done.append("what is no interruptible wait is done")
            with progress.interruptible():
                done.append("nothing of this")

    task = asyncio.create_task(work())
    operation = await begun
    operation.cancel("root asked for that")
    with pytest.raises(OperationCancelledError, match="web: standby was cancelled: root asked for that"):
        await task
    assert done == ["what is no interruptible wait is done"]
    assert operation.outcome == "cancelled"


async def test_the_parts_of_an_operation_end_with_it_and_what_undoes_does_not() -> None:
    undone: list[str] = []

    async def part() -> None:
        with progress.operation("fork", "child", "web-1"), progress.interruptible():
            await asyncio.Event().wait()

    with progress.operation("fan-out", "id", "web") as whole:
        task = asyncio.create_task(part())
        await asyncio.sleep(0)
        whole.cancel("root asked for that")
        with pytest.raises(OperationCancelledError, match="web-1: fork was cancelled"):
            await task
        with pytest.raises(OperationCancelledError), progress.operation("fork", "other", "web-2"):
            progress.check()
        with progress.uncancelled(), progress.operation("delete", "child", "web-1"):
            with progress.interruptible():
                await asyncio.sleep(0)
            progress.check()
            undone.append("web-1")
    assert undone == ["web-1"]


async def test_a_thread_that_copies_ends_where_it_counts() -> None:
    copied: list[int] = []
    at_it, go_on = threading.Event(), threading.Event()
    operations: list[progress.Operation] = []

    def copy() -> None:
        with progress.counted(100, "bytes"):
            for _ in range(100):
                copied.append(1)
                progress.advance(1)
                at_it.set()
                go_on.wait()

    async def work() -> None:
        with progress.operation("fork", "id", "web") as operation:
            operations.append(operation)
            await asyncio.to_thread(copy)

    task = asyncio.create_task(work())
    await asyncio.to_thread(at_it.wait)
    (operation,) = operations
    assert (operation.done, operation.total, operation.unit) == (1, 100, "bytes")
    operation.cancel("root asked for that")
    go_on.set()
    with pytest.raises(OperationCancelledError):
        await task
    assert len(copied) == 2
    assert operation.total is None


async def test_a_compaction_that_is_cancelled_leaves_the_chain_as_it_was(embedded: Home) -> None:
    said: list[str] = []
    async with opened_host(embedded) as host:
        inventory = host._parts.inventory
        source = await host.create(CreateRequest(name="source", image="pagewalker", cmd=("hot_mib=1",)))
        await host.queries.wait("source", State.RUNNING, 30)
        for _ in range(3):
            await host.checkpoint(source.id, CheckpointRequest())
        record = inventory.instances[source.id]
        files = sorted(path.name for path in inventory.layout.instance(source.id).iterdir())
        layers = Layers(inventory, 1, lambda level, message, *_, **__: said.append(message))
        with progress.operation("standby", source.id, "source") as operation:
            operation.cancel("root asked for that")
            assert await layers.compact(record) is record
            with pytest.raises(OperationCancelledError):
                await layers.flatten(record)
        assert said == ["source: standby was cancelled: root asked for that; its memory image keeps 3 layers"]
        assert sorted(path.name for path in inventory.layout.instance(source.id).iterdir()) == files
        assert len(own_snapshot(await layers.flatten(record)).layers) == 1
        await host.delete(source.id, cascade=True)
