"""The main job over the socket, on both hypervisors: fork, fan out, watch, refuse, delete; and what survives what."""

import asyncio
import signal
from collections.abc import Awaitable
from typing import Final

import psutil
import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import CreateRequest, FanOutRequest, FanOutResult, ForkRequest, Instance, State
from tests.harness.refusals import refused
from tests.harness.supervisor_process import (
    PATIENCE,
    Home,
    find,
    gathered,
    guest,
    sample,
    supervisor,
    until,
    walking_source,
)
from tests.harness.verified_guests import standby_source, until_verified, verified

ROUNDS: Final = 20
"""How often an instance is looked at while it goes: one such meeting in a handful misses its files."""
SHARED = ForkRequest(share_memory=True, target_state="Running")


@pytest.mark.quick
async def test_a_fan_out_is_recorded_prefetched_verified_locked_and_released(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client)
        assert (source.state, source.has_snapshot, source.mem_locked) == (State.STANDBY, True, False)

        warm = await client.fork(source.id, SHARED.model_copy(update={"name": "warm"}))
        assert (warm.state, warm.fork_kind, warm.memory_backend) == (State.RUNNING, "share_memory", "uffd")
        host = await until(lambda host: any(t.recorded_pages and not t.recording_fork for t in host.templates), client)
        (template,) = host.templates
        assert template.recorded_pages >= 4096, "the hot set alone is 4096 pages"

        result = await client.fan_out(source.id, FanOutRequest(count=4))
        assert [child.error for child in result.children] == [None] * 4
        names = [child.name for child in result.children]
        assert names == [f"source-{number}" for number in range(1, 5)]
        host = await until_verified(client, "warm", *names)
        for name in names:
            statistics = sample(host, name)
            # The VMM itself may touch a page before its prefetch has come to it.
            assert 0.99 * template.recorded_pages <= statistics.prefetched_pages <= template.recorded_pages
            assert statistics.residual_faults <= template.recorded_pages // 100
            assert guest(host, name).corrupt is None
        forked = find(host, names[0])
        assert forked is not None
        assert [phase.name for phase in forked.phases] == ["prepare", "spawn", "load", "prefetch", "resume"]
        fold = await client.memory(names[0], 64)
        assert sum(cell[3] for cell in fold.cells) == sample(host, names[0]).prefetched_pages
        assert sum(map(sum, fold.cells)) == fold.pages == source.size_bytes // fold.page_size

        locked = await client.instance("source")
        assert (locked.fork_count, locked.mem_locked) == (5, True)
        for verb in (client.restore, client.delete, client.start):
            error = await refused(verb("source"))
            assert (error.status, error.code) == (409, "invalid_state")
            assert "warm" in error.message
            assert {one.name for one in error.details if one.code == "mem_locked"} == {"warm", *names}

        for name in ("warm", *names):
            await client.delete(name)
        assert not (await client.instance("source")).mem_locked
        restored = await client.restore("source")
        assert (restored.state, restored.memory_backend) == (State.RUNNING, "file")
        host = await until(lambda host: verified(host, "source") and not host.templates, client)
        await client.delete("source")
        assert await client.instances() == []
    assert home.processes() == []
    assert [path.name for path in home.run.rglob("*") if path.name != "pages"] == []
    assert list((home.data / "instances").iterdir()) == list((home.data / "templates").iterdir()) == []


async def test_forks_on_the_file_backend_verify_their_memory_and_hold_the_lock(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client)
        fork = await client.fork(
            "source", ForkRequest(share_memory=True, memory_backend="file", target_state="Running")
        )
        assert fork.memory_backend == "file"
        host = await until_verified(client, fork.name)
        assert sample(host, fork.name).faults == 0
        assert (await client.instance("source")).fork_count == 1
        error = await refused(client.memory(fork.name, 10))
        assert (error.status, "no page map" in error.message) == (404, True)
        for name in (fork.name, "source"):
            await client.delete(name)


async def test_copies_leave_the_source_unlocked_and_a_running_source_runs_on(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client)
        error = await refused(client.fork("source", ForkRequest()))
        assert "from_running=true" in error.message
        copy = await client.fork("source", ForkRequest(name="copy", from_running=True))
        assert (copy.state, copy.fork_kind) == (State.RUNNING, "copy")
        assert (await client.instance(source.id)).vmm_pid == source.vmm_pid
        host = await until_verified(client, "copy")
        assert not guest(host, "source").restored
        again = find(host, "source")
        assert again is not None
        assert (again.fork_count, again.mem_locked) == (0, False)
        stopped = await client.stop("copy")
        assert stopped.state is State.STOPPED
        await client.start("copy")
        await until(lambda host: guest(host, "copy").ready and not guest(host, "copy").restored, client)
        for name in ("source", "copy"):
            await client.delete(name)


async def test_a_fork_of_a_fork_reads_its_own_sources_memory(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client)
        await client.fork("source", SHARED.model_copy(update={"name": "child"}))
        await until_verified(client, "child")
        await client.standby("child")
        await client.fork("child", SHARED.model_copy(update={"name": "grandchild"}))
        await until_verified(client, "grandchild")
        lineage = await client.lineage("source")
        assert lineage.tree.children[0].children[0].name == "grandchild"
        assert "grandchild" in (await refused(client.delete("child"))).message
        for name in ("grandchild", "child", "source"):
            await client.delete(name)


async def test_a_killed_vmm_is_seen_with_its_reason_and_keeps_the_lock_until_deleted(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client)
        fork = await client.fork("source", SHARED)
        assert fork.vmm_pid is not None
        psutil.Process(fork.vmm_pid).kill()
        await client.wait(fork.id, State.STOPPED, PATIENCE)
        stopped = await client.instance(fork.id)
        assert "SIGKILL" in (stopped.exit_message or "")
        assert (await client.instance("source")).mem_locked
        assert not psutil.pid_exists(fork.vmm_pid), "a zombie is left"
        await client.delete(fork.id)
        await client.delete("source")


async def test_a_new_supervisor_finds_what_an_earlier_one_left_running(home: Home) -> None:
    async with supervisor(home) as running:
        await standby_source(running.client)
        fork = await running.client.fork("source", SHARED)
        before = await until_verified(running.client, fork.name)
    assert fork.vmm_pid is not None
    assert psutil.pid_exists(fork.vmm_pid)
    async with supervisor(home) as running:
        client = running.client
        after = await until_verified(client, fork.name)
        assert {one.name: one.state for one in after.instances} == {one.name: one.state for one in before.instances}
        assert find(after, fork.name).vmm_pid == fork.vmm_pid  # type: ignore[union-attr]
        assert (await client.instance("source")).fork_count == 1
        second = await client.fork("source", SHARED)
        await until_verified(client, second.name)
        for name in (fork.name, second.name, "source"):
            await client.delete(name)
    assert home.processes() == []


@pytest.mark.parametrize(
    ("request_", "status", "code", "words"),
    [
        ({"image": "nginx"}, 400, "invalid_image", "pagewalker"),
        ({"size": "0MB"}, 400, "invalid_size", "size"),
        ({"size": "900TB"}, 400, "invalid_size", "size"),
        ({"size": "big"}, 400, "invalid_size", "128MB"),
        ({"hypervisor": "firecracker"}, 501, "dependency_missing", "firecracker"),
    ],
)
async def test_a_create_that_cannot_be_says_why_and_leaves_nothing(
    embedded: Home, request_: dict[str, str], status: int, code: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("FORKTUI_FIRECRACKER", raising=False)
    async with supervisor(embedded) as running:
        values = {"name": "vm", "image": "pagewalker"} | request_
        error = await refused(running.client.create(CreateRequest.model_validate(values)))
        assert (error.status, error.code) == (status, code)
        assert words in error.message
        assert "\n" not in error.message
        assert await running.client.instances() == []
        assert list((embedded.data / "instances").iterdir()) == []


async def test_a_name_is_taken_once(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        made = await gathered(*(client.create(CreateRequest(name="one", image="pagewalker")) for _ in range(5)))
        assert sum(isinstance(one, Instance) for one in made) == 1
        assert {one.code for one in made if isinstance(one, ApiError)} == {"name_conflict"}
        await client.delete("one")
        await client.create(CreateRequest(name="one", image="pagewalker"))
        await client.delete("one")


async def test_concurrent_forks_and_deletes_of_one_source_lose_no_count(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        forks = await gathered(*(client.fork("source", SHARED) for _ in range(8)))
        assert all(isinstance(fork, Instance) for fork in forks), forks
        templates = (await until(lambda host: True, client)).templates
        assert len(templates) == 1, "concurrent forks promote once"
        assert (await client.instance("source")).fork_count == 8
        outcomes = await gathered(
            *(client.delete(fork.id) for fork in forks if isinstance(fork, Instance)),
            client.restore("source"),
            client.fork("source", SHARED.model_copy(update={"name": "late"})),
        )
        source = await client.instance("source")
        late = isinstance(outcomes[-1], Instance)
        restored = isinstance(outcomes[-2], Instance)
        assert not (late and restored), "a locked source was restored"
        assert source.fork_count == int(late)
        assert (source.state is State.RUNNING) == restored
        for name in (["late"] if late else []) + ["source"]:
            await client.delete(name)


async def test_an_unknown_reference_is_not_found(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        error = await refused(running.client.instance("nobody"))
        assert (error.status, error.code) == (404, "not_found")


async def test_a_supervisor_killed_outright_leaves_its_vms_to_the_next(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        fork = await running.client.fork("source", SHARED)
        await running.end(signal.SIGKILL)
    async with supervisor(embedded) as running:
        assert (await running.client.instance(fork.id)).vmm_pid == fork.vmm_pid
        await running.client.delete(fork.id)
        await running.client.delete("source")


async def test_a_fork_whose_snapshot_cannot_be_loaded_leaves_nothing_and_the_source_as_it_was(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client)
        directory = home.data / "instances" / source.id
        (state,) = directory.glob("state.*")
        whole = state.read_bytes()
        state.chmod(0o600)
        state.write_bytes(whole[: len(whole) // 2])
        (result,) = await gathered(client.fan_out(source.id, FanOutRequest(count=2)))
        if home.hypervisor == "embedded":
            # Of its state-files all is read before; of Firecracker's the head.
            assert isinstance(result, ApiError)
            assert (result.status, f"{state.name} cannot be used" in result.message) == (409, True)
        else:
            assert isinstance(result, FanOutResult)
            for child in result.children:
                assert child.error is not None
                assert child.error.code == "vmm_failed"
                assert child.name in child.error.message
        assert [one.name for one in await client.instances()] == ["source"]
        assert not (await client.instance("source")).mem_locked
        state.write_bytes(whole)
        again = await client.fork(source.id, SHARED)
        await until_verified(client, again.name)
        for name in (again.name, "source"):
            await client.delete(name)
    assert home.processes() == []
    assert [path.name for path in home.run.rglob("*") if path.name != "pages"] == []


async def test_a_vmm_that_dies_in_standby_leaves_the_source_stopped_with_its_reason(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client)
        assert source.vmm_pid is not None
        psutil.Process(source.vmm_pid).send_signal(signal.SIGSTOP)
        (outcome,) = await gathered(killed_meanwhile(client, source))
        assert isinstance(outcome, ApiError), outcome
        assert outcome.code == "vmm_failed"
        await client.wait("source", State.STOPPED, PATIENCE)
        assert [path.name for path in (home.data / "instances" / source.id).glob("mem.*")] == []
        await client.delete("source")


async def killed_meanwhile(client: SupervisorClient, source: Instance) -> Instance:
    """Ask for standby of a VM that is frozen, and kill it as soon as the verb is under way."""
    assert source.vmm_pid is not None
    standby = asyncio.create_task(client.standby(source.id))
    await until(lambda host: any(one.busy == "standby" for one in host.instances), client)
    psutil.Process(source.vmm_pid).kill()
    return await standby


async def test_fan_outs_at_the_same_time_take_different_names(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        stay = FanOutRequest(count=12, target_state="Standby", concurrency=2)
        first, second, one = await asyncio.gather(
            client.fan_out("source", stay), client.fan_out("source", stay), client.fork("source", ForkRequest())
        )
        children = (*first.children, *second.children)
        assert [child.error for child in children] == [None] * 24
        assert len({child.name for child in children} | {one.name}) == 25
        for name in (*(child.name for child in children), one.name, "source"):
            await client.delete(name)


async def test_a_fan_out_that_no_child_could_be_made_of_is_refused_whole_and_so_is_its_estimate(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", "passes=0")
        error = await refused(client.fan_out("source", FanOutRequest(count=2)))
        assert error.message == "source: fan-out refused: it is Running; put it to standby first"
        await client.standby("source")
        foreign = FanOutRequest(count=2, share_memory=False, template_id="nobodys")
        for ask in (client.fan_out, client.fan_out_estimate):
            error = await refused(ask("source", foreign))
            assert (error.status, error.code) == (400, "bad_request")
            assert "nobodys is not its template" in error.message
        assert [one.name for one in await client.instances()] == ["source"]


async def test_a_source_that_goes_while_it_is_looked_at_is_told_as_gone(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        two = FanOutRequest(count=2, target_state="Standby", name_prefix="made")

        async def ask(looking: Awaitable[object]) -> str:
            try:
                await looking
            except ApiError as error:
                return error.code
            return "done"

        for _ in range(ROUNDS):
            await client.fork("source", ForkRequest(name="goes", share_memory=False, target_state="Standby"))
            going = client.delete("goes", cascade=True)
            looking = [client.fan_out_estimate("goes", two) for _ in range(6)]
            codes = await asyncio.gather(*map(ask, (*looking, client.fan_out("goes", two), going)))
            assert set(codes) <= {"done", "not_found", "invalid_state", "cancelled"}, codes
            if [one.name for one in await client.instances()] != ["source"]:
                await client.delete("goes", cascade=True)
