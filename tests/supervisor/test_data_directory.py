"""A data directory that is read-only, somebody else's, or from the future: a clear refusal, and nothing is changed."""

import asyncio
import dataclasses
import hashlib
import json
import os
import signal
from pathlib import Path

from forktui.client.api import ApiError
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, State
from tests.harness.refusals import refused
from tests.harness.small_disk import small_disk
from tests.harness.supervisor_process import PATIENCE, Home, gathered, guest, sample, supervisor, until, walking_source
from tests.harness.verified_guests import one_more_pass, standby_source

SHARED = ForkRequest(share_memory=True, target_state="Running")


async def refusal(home: Home) -> str:
    """Start a supervisor that has to refuse; return what it says."""
    process = await asyncio.create_subprocess_exec(
        *home.command(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, printed) == (1, b"")
    (line,) = said.decode().splitlines()
    return line


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file and the target of each name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
        for path in sorted(folder.rglob("*"))
    }


async def test_a_directory_of_a_newer_schema_is_refused_and_left_as_it_is(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="one", image="pagewalker"))
        await running.client.stop("one")
    schema = embedded.data / "schema"
    assert schema.read_text() == "1\n"
    for text, words in (("7\n", "has schema 7, and this supervisor knows 1: start the newer"), ("x", "no number")):
        schema.write_text(text)
        before = contents(embedded.data)
        assert words in await refusal(embedded)
        assert contents(embedded.data) == before
    schema.write_text("")
    async with supervisor(embedded) as running:
        assert [one.name for one in await running.client.instances()] == ["one"]
    assert schema.read_text() == "1\n"


async def test_a_record_of_a_newer_schema_is_set_aside_and_its_vm_let_alone(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await walking_source(running.client, "future", "passes=0")
        await running.client.create(CreateRequest(name="present", image="pagewalker"))
    path = embedded.data / "instances" / source.id / "instance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "added": {"later": True}, "schema_version": 2}))
    before = path.read_bytes()
    async with supervisor(embedded) as running:
        found = {one.name: one for one in await running.client.instances()}
        assert set(found) == {"present", "future"}
        assert (found["future"].id, found["future"].state) == (source.id, State.UNKNOWN)
        assert found["future"].state_error == (
            f"{path}: it has schema 2, and this supervisor knows 1: start the newer forktui"
        )
        for verb in (running.client.delete, running.client.standby, running.client.stop):
            assert source.id in (await refused(verb(source.id))).message
        await running.client.delete("present")
    assert path.read_bytes() == before
    assert source.vmm_pid is not None
    os.kill(source.vmm_pid, 0)


async def test_another_run_directory_is_refused_while_vms_listen_in_the_first(embedded: Home) -> None:
    """They go on, and a supervisor that looks for their sockets elsewhere could not speak to them."""
    second = embedded.root / "second"
    second.mkdir()
    moved = dataclasses.replace(embedded, root=second, options=("--data-dir", str(embedded.data)))
    async with supervisor(embedded) as running:
        await walking_source(running.client, "one", "passes=0")
        await walking_source(running.client, "two", "passes=0")
        await running.end(signal.SIGKILL)
    said = await refusal(moved)
    assert (
        f"{embedded.data}: 2 VMs that run have their sockets in {embedded.run}; give --run-dir {embedded.run}" in said
    )
    assert not moved.run.exists()
    same = embedded.root / "same"
    same.symlink_to(embedded.root)
    async with supervisor(dataclasses.replace(embedded, root=same)) as running:
        await one_more_pass(running.client, "one")
        await running.client.stop("two")
        await running.client.standby("one")
    async with supervisor(moved) as running:
        assert [one.name for one in await running.client.instances()] == ["one", "two"]
        await running.client.restore("one")
        await one_more_pass(running.client, "one")
        await running.client.delete("one")


async def test_the_run_directory_of_another_data_directorys_vms_is_refused_and_left_as_it_is(embedded: Home) -> None:
    """Sockets that no record names are removed at a start: these are not nobody's."""
    stranger = dataclasses.replace(embedded, options=("--data-dir", str(embedded.root / "other")))
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "passes=0")
        fork = await client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        await running.end(signal.SIGKILL)
    (embedded.run / "lock").unlink()
    before = {*embedded.run.rglob("*")}
    said = await refusal(stranger)
    assert f"{embedded.run} has the sockets of processes of another data directory (pid " in said
    assert f"{fork.vmm_pid}" in said
    assert "give that one with --data-dir, or name another with --run-dir" in said
    assert {*embedded.run.rglob("*")} == before
    assert not (embedded.root / "other").exists()
    async with supervisor(embedded) as running:
        await one_more_pass(running.client, "fork")
        for name in ("fork", "source"):
            await running.client.delete(name)
    async with supervisor(stranger) as running:
        assert await running.client.instances() == []


async def test_a_second_supervisor_is_refused_and_harms_nobody(embedded: Home) -> None:
    """On the same data directory, with the same run directory or another one; or only on the same run directory."""
    elsewhere = dataclasses.replace(embedded, root=embedded.root / "second")
    elsewhere.root.mkdir()
    async with supervisor(embedded) as running:
        source = await walking_source(running.client, "source", "passes=0")
        held = f"another supervisor (pid {running.process.pid}) holds {embedded.data}; stop it, or name another"
        assert held in await refusal(embedded)
        moved = dataclasses.replace(elsewhere, options=("--data-dir", str(embedded.data)))
        assert held in await refusal(moved)
        squeezed = dataclasses.replace(elsewhere, options=("--run-dir", str(embedded.run)))
        held = f"another supervisor (pid {running.process.pid}) holds {embedded.run}; stop it, or name another"
        assert held in await refusal(squeezed)
        await one_more_pass(running.client, "source")
        assert (await running.client.checkpoint("source")).state is State.STANDBY
        await running.end(signal.SIGKILL)
        assert (embedded.data / "lock").read_text() == f"{running.process.pid}\n"
        # The lock of one that was killed is nobody's.
        async with supervisor(embedded) as again:
            assert (await again.client.instance("source")).vmm_pid == source.vmm_pid
            await one_more_pass(again.client, "source")


async def test_a_read_only_directory_is_refused_and_one_that_becomes_so_stops_no_vm(embedded: Home) -> None:
    with small_disk(embedded.data, 256) as disk:
        async with supervisor(embedded) as running:
            client = running.client
            await walking_source(client, "source", "passes=0")
            await client.create(CreateRequest(name="runner", image="pagewalker", cmd=("passes=0",)))
            await client.wait("runner", State.RUNNING, PATIENCE)
            await client.standby("source")
            await client.fork("source", SHARED.model_copy(update={"name": "share"}))
            with disk.read_only():
                outcomes = await gathered(
                    client.create(CreateRequest(name="new", image="pagewalker")),
                    client.standby("runner"),
                    client.checkpoint("runner", CheckpointRequest(name="new-2")),
                    client.fork("source", ForkRequest(name="new-3")),
                    client.fork("source", SHARED.model_copy(update={"name": "new-4"})),
                    client.detach("share"),
                    client.delete("share"),
                    client.delete("runner"),
                )
                for outcome in outcomes:
                    assert isinstance(outcome, ApiError), outcome
                    assert outcome.code == "storage_failed", outcome
                    assert "Read-only file system" in outcome.message
                    assert "writable" in outcome.message
                forced = await client.fan_out("source", FanOutRequest(count=2, force=True))
                assert [child.error and child.error.code for child in forced.children] == ["storage_failed"] * 2
            await one_more_pass(client, "share")
            host = await until(lambda host: sample(host, "share").present_pages > 0, client)
            (server,) = (template.page_server_pid for template in host.templates)
            await running.end(signal.SIGKILL)
        with disk.read_only():
            line = await refusal(embedded)
            assert (
                f"{embedded.data} is in a read-only file system; remount that, or name another with --data-dir" in line
            )
        async with supervisor(embedded) as again:
            await one_more_pass(again.client, "share")
            host = await until(lambda host: bool(host.templates), again.client)
            assert host.templates[0].page_server_pid == server
            for name in ("share", "source"):
                await again.client.delete(name)
        embedded.kill_everything()


async def test_records_of_the_future_are_in_the_way_of_nothing(embedded: Home) -> None:
    """As a clock that was set back leaves them: a source that is made long after its fork."""
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client)
        fork = await client.fork("source", SHARED.model_copy(update={"name": "fork"}))
        await client.create(CreateRequest(name="runner", image="pagewalker", cmd=("passes=0",)))
    for folder, times in ((source.id, ("created_at", "stopped_at")), (fork.id, ("started_at",))):
        path = embedded.data / "instances" / folder / "instance.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **dict.fromkeys(times, "2199-01-01T00:00:00Z")}))
    async with supervisor(embedded) as running:
        client = running.client
        found = {one.name: one for one in await client.instances()}
        assert (found["source"].created_at.year, found["source"].fork_count, found["source"].locked_by) == (
            2199, 1, ("fork",),
        )  # fmt: skip
        assert (found["fork"].state, found["fork"].vmm_pid) == (State.RUNNING, fork.vmm_pid)
        lineage = await client.lineage("fork")
        assert lineage.ancestors == (source.id,)
        await client.fork("source", SHARED.model_copy(update={"name": "second"}))
        await until(lambda host: guest(host, "second").passes >= 1, client)
        assert not (await client.wait("runner", State.RUNNING, PATIENCE)).timed_out
        assert (await client.wait("runner", State.STANDBY, 0.1)).timed_out
        for name in ("second", "fork"):
            await client.delete(name)
        restored = await client.restore("source")
        assert restored.started_at is not None
        assert restored.stopped_at is None
        for name in ("source", "runner"):
            await client.delete(name)
