"""Checkpoints over the socket: the source runs on, whatever becomes of the snapshot."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from forktui.client.api import SupervisorClient
from supervisor.guests.boot import kernel_path
from supervisor.models import CreateRequest, State
from supervisor.system.processes import proc_file
from supervisor.system.sparse_files import allocated
from supervisor.vmm.api_client import ApiClient
from tests.harness.jails import api_socket, identity
from tests.harness.layers_on_disk import SHARED, chain, checkpoint, directory, record
from tests.harness.supervisor_process import PATIENCE, Home, gathered, supervisor, walking_source
from tests.harness.verified_guests import one_more_pass, standby_source, until_verified
from tests.harness.waiting import until as until_true

MIB = 1 << 20


async def test_checkpoints_of_a_running_vm_are_verified_by_forks_on_both_backends(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client, "source", "passes=0")
        for depth, name in enumerate(("one", "two", "three"), 1):
            made = await checkpoint(client, source, name)
            assert (made.state, made.fork_kind, made.layers, made.source_id) == (
                State.STANDBY, "checkpoint", depth, source.id,
            )  # fmt: skip
            assert [phase.name for phase in made.phases] == ["paused", "write"]
            assert made.phases[0].milliseconds > 0
            assert len(chain(home, made)) == depth
            assert [path.name for path in chain(home, made)] == [path.name for path in chain(home, source)]
            await one_more_pass(client, "source")
        first, second, third = await asyncio.gather(*(client.instance(name) for name in ("one", "two", "three")))
        assert allocated(chain(home, first)[0].stat()) < 32 * MIB, "the hot set, not the whole memory"
        assert allocated(chain(home, third)[0].stat()) < MIB, "what a walk writes"

        still = await client.instance(source.id)
        assert (still.state, still.vmm_pid, still.mem_locked) == (State.RUNNING, source.vmm_pid, False)
        await client.stop(source.id)
        assert chain(home, source) == [], "stop drops the chain"

        for made in (first, second, third):
            await client.fork(made.id, SHARED.model_copy(update={"name": f"{made.name}-uffd"}))
            file = SHARED.model_copy(update={"name": f"{made.name}-file", "memory_backend": "file"})
            await client.fork(made.id, file)
            await until_verified(client, f"{made.name}-uffd", f"{made.name}-file")
            for fork in ("uffd", "file"):
                await client.delete(f"{made.name}-{fork}")
        await client.delete(first.id)
        await client.delete(second.id)
        (flat,) = chain(home, third)
        assert flat.stat().st_nlink == 1, "the fork on the file backend had it made, and nobody else has it now"
        for name in ("three", "source"):
            await client.delete(name)


async def test_a_checkpoint_of_a_fork_leaves_it_attached_to_its_template(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", "passes=0")
        await client.fork(source.id, SHARED.model_copy(update={"name": "fork", "prefetch": "off"}))
        await until_verified(client, "fork")
        made = await client.checkpoint("fork")
        assert (made.name, made.layers) == ("fork-1", 2)
        fork = await client.instance("fork")
        assert (fork.state, fork.memory_backend) == (State.RUNNING, "uffd")
        await client.memory("fork", 8)
        await one_more_pass(client, "fork")
        await client.standby("fork")
        for name in ("fork", "fork-1"):
            await client.fork(name, SHARED.model_copy(update={"name": f"of-{name}"}))
        await until_verified(client, "of-fork", "of-fork-1")
        for name in ("of-fork", "of-fork-1", "fork-1", "fork", "source"):
            await client.delete(name)


async def test_a_snapshot_that_fails_leaves_the_source_running_and_the_next_is_whole(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client, "source", "passes=0")
        await checkpoint(client, source, "good")
        files = {path.name for path in directory(home, source).iterdir()}
        assert source.vmm_pid is not None
        with no_more_files(source.vmm_pid):
            failures = await gathered(client.checkpoint(source.id), client.standby(source.id))
        assert all("refused PUT /snapshot/create" in str(failure) for failure in failures), failures
        assert {path.name for path in directory(home, source).iterdir()} == files
        assert [one.name for one in await client.instances()] == ["source", "good"]
        await one_more_pass(client, "source")

        whole = await checkpoint(client, source, "whole")
        assert whole.layers == 1, "the dirty log of a failed snapshot may be lost"
        again = await checkpoint(client, source, "again")
        assert again.layers == 2
        for name in ("good", "whole", "again"):
            await client.fork(name, SHARED.model_copy(update={"name": f"of-{name}"}))
        await until_verified(client, "of-good", "of-whole", "of-again")
        await client.standby(source.id)
        await client.fork(source.id, SHARED.model_copy(update={"name": "last"}))
        await until_verified(client, "last")
        for name in ("last", "of-good", "of-whole", "of-again", "good", "whole", "again", "source"):
            await client.delete(name)


async def test_disks_are_copied_while_the_source_is_paused_or_there_is_no_checkpoint(firecracker_home: Home) -> None:
    image = firecracker_home.data / "images" / "disked"
    image.mkdir(parents=True)
    shutil.copy(kernel_path(), image / "kernel")
    (image / "data").write_bytes(b"disk" * 1024)
    drive = {"drive_id": "data", "is_root_device": False, "path_on_host": "data"}
    config = {"boot-source": {"kernel_image_path": "kernel", "boot_args": "passes=0"}, "drives": [drive]}
    (image / "vm.json").write_text(json.dumps(config))
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="disked"))
        await until_printed(client, "source", "pass 1")
        disk = directory(firecracker_home, source) / "disk.data"
        made = await checkpoint(client, source, "one")
        copied = directory(firecracker_home, made) / "disk.data"
        assert (copied.read_bytes(), copied.samefile(disk)) == (disk.read_bytes(), False)

        disk.rename(disk.with_name("elsewhere"))
        files = {path.name for path in directory(firecracker_home, source).iterdir()}
        (failure,) = await gathered(client.checkpoint(source.id))
        assert f"{disk}: No such file or directory; put it back" in str(failure)
        assert {path.name for path in directory(firecracker_home, source).iterdir()} == files
        assert len(list((firecracker_home.data / "instances").iterdir())) == 2
        await until_printed(client, "source", "pass ", tail=0)
        disk.with_name("elsewhere").rename(disk)
        assert (await checkpoint(client, source, "whole")).layers == 2, "it was not paused, and no layer is lost"
        for name in ("one", "whole"):
            await client.fork(name, SHARED.model_copy(update={"name": f"of-{name}"}))
            await until_printed(client, f"of-{name}", "restored")
            await until_printed(client, f"of-{name}", "pass 1")
        for name in ("of-one", "of-whole", "one", "whole", "source"):
            await client.delete(name)


async def until_printed(client: SupervisorClient, name: str, beginning: str, tail: int = 100_000) -> None:
    """Return when the guest prints a line that begins so; it may not have found a wrong byte before."""
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.follow_log(name, tail)) as lines:
        async for line in lines:
            assert not line.startswith("CORRUPT"), name
            if line.startswith(beginning):
                return
    raise AssertionError(f"{name} never printed {beginning}")


@contextlib.contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """Let a VMM open no file while the context lasts."""
    limits = proc_file(pid, "limits").decode().splitlines()
    soft, hard = next(line.split()[3:5] for line in limits if line.startswith("Max open files"))
    user = identity(pid)
    # As the VMM's own user: root may do this to another's only with CAP_SYS_RESOURCE (prlimit(2)).
    become = f"os.setgroups([]); os.setgid({user.gid}); os.setuid({user.uid})" if user.uid != os.geteuid() else "pass"

    def set_limit(soft: int | str) -> None:
        program = f"import os, resource; {become}; resource.prlimit({pid}, resource.RLIMIT_NOFILE, ({soft}, {hard}))"
        subprocess.run((sys.executable, "-I", "-c", program), check=True)

    set_limit(0)
    try:
        yield
    finally:
        set_limit(soft)


async def test_a_supervisor_killed_while_the_source_was_paused_lets_it_run_on(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client, "source", "passes=0")
        await checkpoint(client, source, "before")
        await running.end(signal.SIGKILL)
    begun = record(home, source).model_copy(update={"snapshot_unfinished": True})
    (directory(home, source) / "instance.json").write_text(begun.model_dump_json())
    layer = directory(home, source) / f"mem.{begun.next_layer}.new"
    layer.write_bytes(b"half")
    nameless = layer.with_suffix("")
    nameless.write_bytes(b"complete, and in no record")
    assert begun.process is not None
    api = ApiClient(api_socket(home, source.id), "source", begun.process.pid, gone, lambda: True)
    await api.pause()
    await api.close()
    async with supervisor(home) as running:
        client = running.client
        await one_more_pass(client, "source")
        await until_true(lambda: not layer.exists() and not nameless.exists())
        after = await checkpoint(client, source, "after")
        assert after.layers == 1
        await client.fork("after", SHARED.model_copy(update={"name": "fork"}))
        await until_verified(client, "fork")
        for name in ("fork", "after", "before", "source"):
            await client.delete(name)


async def test_a_vmm_that_still_writes_its_snapshot_holds_nobody_up_and_lets_its_vm_run_on_after_it(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client, "source", "passes=0")
        await running.end(signal.SIGKILL)
    begun = record(home, source).model_copy(update={"snapshot_unfinished": True})
    (directory(home, source) / "instance.json").write_text(begun.model_dump_json())
    assert begun.process is not None
    api = ApiClient(api_socket(home, source.id), "source", begun.process.pid, gone, lambda: True)
    await api.pause()
    await api.close()
    # As silent as one that writes for minutes.
    os.kill(begun.process.pid, signal.SIGSTOP)
    async with supervisor(home):
        pass
    async with supervisor(home) as running:
        client = running.client
        operation = (await client.instance("source")).operation
        assert operation is not None
        assert (operation.verb, operation.step, operation.asked_by) == ("unpause", "resume", "supervisor")
        os.kill(begun.process.pid, signal.SIGCONT)
        await one_more_pass(client, "source")
        await client.delete("source")


async def gone() -> str:
    return "has ended"


async def test_how_long_the_source_was_paused_is_told_to_all(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await walking_source(client, "source", "passes=0")
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def listen() -> None:
            async for _, event in client.events():
                if event.type == "reset" and not told.done():
                    started.set()
                if event.type == "activity" and "paused" in event.message:
                    told.set_result(event.message)
                    return

        started = asyncio.Event()
        listener = asyncio.create_task(listen())
        await started.wait()
        made = await client.checkpoint(source.id)
        paused = next(phase.milliseconds for phase in made.phases if phase.name == "paused")
        assert await asyncio.wait_for(told, 10) == (
            f"source-1: checkpoint of source, which was paused for {paused:.1f} ms"
        )
        await listener
        for name in (made.id, source.id):
            await client.delete(name)
