"""A share_memory fork whose memory comes from its source no more lets go of that one's lock by itself, and says so."""

import os
import re
import signal

from forktui.client.api import SupervisorClient
from supervisor.models import ForkRequest, Instance, State
from supervisor.store.layout import KERNEL
from tests.harness.refusals import refused
from tests.harness.supervisor_process import PATIENCE, Home, RunningSupervisor, supervisor, until_walking
from tests.harness.verified_guests import standby_source, two_more_passes, until_verified
from tests.harness.wholeness import whole

FORK = ForkRequest(name="fork", share_memory=True, target_state="Running", record="off")
ENDLESS = ("passes=0", "hot_mib=1")


async def forked(client: SupervisorClient, **options: object) -> Instance:
    """A fork that reads the memory of `source`, which is locked by it."""
    await standby_source(client, "source", *ENDLESS)
    fork = await client.fork("source", FORK.model_copy(update=options))
    assert (fork.fork_kind, fork.let_go) == ("share_memory", None)
    assert (await client.instance("source")).locked_by == ("fork",)
    return fork


def told(running: RunningSupervisor) -> list[str]:
    """Return what was told of letting go."""
    return re.findall(r"(\w+: holds no lock: .*)", running.log.read_text())


async def is_free(client: SupervisorClient, fork: Instance, why: str) -> None:
    """See that a fork says that it holds no lock, and that its source may run and go."""
    assert (fork.fork_kind, fork.template_id, fork.let_go) == ("copy", None, why)
    source = await client.instance("source")
    assert (source.fork_count, source.mem_locked, source.locked_by) == (0, False, ())
    await client.restore("source")
    await until_verified(client, "source")
    await client.delete("source")


async def test_a_fork_restored_from_its_own_standby_holds_its_sources_lock_no_more(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await forked(client)
        await client.fork("source", FORK.model_copy(update={"name": "other"}))
        asleep = await client.standby("fork")
        assert asleep.fork_kind == "share_memory", "what it is restored from is shared with its source yet"
        await client.restore("fork")
        assert told(running) == [
            "fork: holds no lock: restored from its own standby, it has a memory file of its own; source is mem_locked "
            "by other"
        ]
        await whole(running)
        await client.delete("other")
        await is_free(client, await client.instance("fork"), "restored")
        await two_more_passes(client, "fork")
        # What it is now it stays.
        await client.standby("fork")
        assert (await client.restore("fork")).let_go == "restored"
        assert "holds no lock" in (await refused(client.detach("fork"))).message


async def test_a_fork_in_standby_that_reads_its_template_holds_the_lock_when_it_runs(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await forked(client, target_state="Standby")
        fork = await client.restore("fork")
        assert (fork.fork_kind, fork.let_go, fork.memory_backend) == ("share_memory", None, "uffd")
        assert (await client.instance("source")).locked_by == ("fork",)


async def test_a_fork_whose_vmm_died_and_that_is_started_anew_holds_its_sources_lock_no_more(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        fork = await forked(client)
        assert fork.vmm_pid is not None
        os.kill(fork.vmm_pid, signal.SIGKILL)
        await client.wait("fork", State.STOPPED, PATIENCE)
        assert (await client.instance("source")).locked_by == ("fork",), "it may be detached, started, or deleted"
        started = await client.start("fork")
        assert started.memory_backend is None
        assert told(running) == ["fork: holds no lock: booted anew, it has no memory of its source; source is free"]
        await until_walking(client, "fork")
        await whole(running)
        await is_free(client, await client.instance("fork"), "booted")


async def test_a_fork_that_was_stopped_and_is_started_anew_holds_its_sources_lock_no_more(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await forked(running.client, memory_backend="file")
        await running.client.stop("fork")
        await is_free(running.client, await running.client.start("fork"), "booted")


async def test_a_fork_made_stopped_is_shared_until_it_is_booted(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await forked(running.client, target_state="Stopped")
        await is_free(running.client, await running.client.start("fork"), "booted")


async def test_a_fork_whose_start_or_restore_fails_holds_its_lock_as_before(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        fork = await forked(client)
        directory = home.data / "instances" / fork.id
        await client.standby("fork")
        state = next(directory.glob("state.*"))
        kept = state.read_bytes()
        state.write_bytes(kept[:64])
        await refused(client.restore("fork"))
        assert (await client.instance("fork")).fork_kind == "share_memory"
        state.write_bytes(kept)

        await client.restore("fork")
        # It is restored by now; another is stopped, and cannot boot.
        await client.fork("source", FORK.model_copy(update={"name": "other"}))
        other = await client.stop("other")
        kernel = home.data / "instances" / other.id / KERNEL
        kept = kernel.read_bytes()
        kernel.unlink()
        kernel.write_bytes(b"no kernel")
        await refused(client.start("other"))
        failed = await client.instance("other")
        assert (failed.state, failed.fork_kind, failed.let_go) == (State.STOPPED, "share_memory", None)
        assert (await client.instance("source")).locked_by == ("other",)
        assert "mem_locked by 1 share_memory fork (other)" in (await refused(client.restore("source"))).message
        kernel.write_bytes(kept)
        await is_free(client, await client.start("other"), "booted")


async def test_a_detached_fork_says_that_it_was_detached(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await forked(running.client)
        await is_free(running.client, await running.client.detach("fork"), "detached")
