"""Guests that are waited for until they are ready: by a line on their console, by a port."""

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest

from forktui.client.api import ApiError
from supervisor.models import (
    Activity,
    CreateRequest,
    FanOutRequest,
    ForkRequest,
    Instance,
    InstanceChanged,
    State,
)
from tests.harness.jails import jail_root
from tests.harness.pagewalker_images import write_image
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.waiting import until_console_says

PATIENCE = 20.0
WALKS = ("hot_mib=2", "passes=3")


def write_own(home: Home, **sections: object) -> None:
    vsock = {"guest_cid": 3, "uds_path": "v.sock"}
    write_image(home.data / "images" / "own", {"vsock": vsock, **sections})


def asked(name: str = "web", **fields: object) -> CreateRequest:
    return CreateRequest.model_validate({"name": name, "image": "pagewalker", "size": "64MB", "cmd": WALKS, **fields})


async def test_an_instance_says_when_it_is_ready_by_a_line_and_waits_anew_at_each_start(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        made = await client.create(asked(readiness="console:^pass 2$"))
        assert (made.readiness, made.ready_at, made.unready) == ("console:^pass 2$", None, True)
        result = await client.wait("web", State.RUNNING, PATIENCE, ready=True)
        assert (result.ready, result.timed_out, result.state) == (True, False, State.RUNNING)
        ready = await client.instance("web")
        assert ready.ready_at is not None and ready.ready_ms is not None and not ready.unready
        assert ready.ready_ms > sum(phase.milliseconds for phase in ready.phases)
        await client.stop("web")
        stopped = await client.instance("web")
        assert (stopped.readiness, stopped.ready_at, stopped.ready_ms) == (None, None, None)
        again = await client.start("web")
        assert again.ready_at is None and again.readiness == made.readiness
        assert (await client.wait("web", State.RUNNING, PATIENCE, ready=True)).ready
        await client.delete("web")


async def test_what_never_comes_is_waited_for_until_the_time_is_up(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(asked(readiness="console:never"))
        await client.wait("web", State.RUNNING, PATIENCE)
        result = await client.wait("web", State.RUNNING, 0.3, ready=True)
        assert (result.ready, result.timed_out) == (False, True)
        assert (await client.wait("web", State.RUNNING, PATIENCE, readiness="console:pass 3")).ready
        assert (await client.instance("web")).unready
        await client.delete("web")


async def test_whoever_waits_is_told_that_the_guest_has_ended(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(asked(readiness="console:never"))
        await client.wait("web", State.RUNNING, PATIENCE)
        waits = [
            asyncio.create_task(client.wait("web", State.RUNNING, PATIENCE, ready=True)),
            asyncio.create_task(client.wait("web", State.RUNNING, PATIENCE, readiness="console:nor this")),
        ]
        await client.stop("web")
        for result in await asyncio.gather(*waits):
            assert (result.ready, result.timed_out, result.state) == (False, False, State.STOPPED)
        await client.delete("web")


async def test_a_fork_waits_for_its_own_line_and_not_for_the_one_of_its_sources_boot(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(asked(cmd=("hot_mib=2", "passes=0"), readiness="console:^ready"))
        assert (await client.wait("web", State.RUNNING, PATIENCE, ready=True)).ready
        await client.standby("web")
        plain = await client.fork("web", ForkRequest(name="plain", share_memory=True, target_state="Running"))
        assert (plain.readiness, plain.unready) == (None, False)
        told = FanOutRequest(count=2, readiness="console:^restored$")
        forks = [child.instance for child in (await client.fan_out("web", told)).children]
        for fork in forks:
            assert fork is not None and fork.readiness == "console:^restored$"
            assert (await client.wait(fork.id, State.RUNNING, PATIENCE, ready=True)).ready
        copy = ForkRequest(name="copy", from_running=True, target_state="Running", readiness="console:restored")
        assert (await client.fork("plain", copy)).readiness == "console:restored"
        assert (await client.wait("copy", State.RUNNING, PATIENCE, ready=True)).ready
        await client.delete("web", cascade=True)


async def test_a_line_of_a_forks_first_start_is_not_waited_for_again_and_a_port_is(firecracker_home: Home) -> None:
    write_own(firecracker_home)
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="web", image="own"))
        await until_console_says(firecracker_home.data / "instances" / source.id / "console.log", "pass 1")
        await client.standby("web")
        for name, readiness, later in (("line", "console:^restored$", None), ("port", "vsock:52", "vsock:52")):
            wanted = ForkRequest(name=name, share_memory=True, target_state="Running", readiness=readiness)
            assert (await client.fork("web", wanted)).readiness == readiness
            await client.standby(name)
            assert (await client.restore(name)).readiness == later
            await client.stop(name)
            assert (await client.start(name)).readiness == later
        await client.delete("web", cascade=True)


async def test_being_ready_is_told_in_events_and_survives_the_supervisor(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(asked("before", readiness="console:pass 2"))
        await running.client.wait("before", State.RUNNING, PATIENCE, ready=True)
        late = asked("late", cmd=("hot_mib=2", "passes=0"), readiness="console:pass 99999999")
        await running.client.create(late)
        before = await running.client.instance("before")
        running.process.kill()
        await running.process.wait()
    async with supervisor(embedded) as running:
        client = running.client
        assert (await client.instance("before")).ready_ms == before.ready_ms
        console = embedded.data / "instances" / (await client.instance("late")).id / "console.log"
        told: list[str] = []

        async def listen() -> Instance:
            async for _, event in client.events():
                if isinstance(event, Activity):
                    told.append(event.message)
                if isinstance(event, InstanceChanged) and event.instance.ready_at is not None:
                    return event.instance
            raise AssertionError("the stream of events ended")

        listening = asyncio.create_task(listen())
        with console.open("ab") as file:
            file.write(b"\npass 99999999\n")
        ready = await asyncio.wait_for(listening, PATIENCE)
        assert ready.name == "late" and ready.ready_ms is not None
        await client.delete("before")
        await client.delete("late")


async def test_an_image_names_what_its_guests_are_ready_by(firecracker_home: Home) -> None:
    write_own(firecracker_home, forktui={"readiness": "console:pass 2"})
    async with supervisor(firecracker_home) as running:
        client = running.client
        made = await client.create(CreateRequest(name="own", image="own"))
        assert made.readiness == "console:pass 2"
        assert (await client.wait("own", State.RUNNING, PATIENCE, ready=True)).ready
        vm_json = firecracker_home.data / "instances" / made.id / "vm.json"
        assert "forktui" not in json.loads(await asyncio.to_thread(vm_json.read_text))
        await client.delete("own")


@pytest.mark.parametrize(
    ("own", "told"),
    [({"readiness": "soon"}, "readiness"), ({"readyness": "console:a"}, "readyness"), ("console:a", "forktui")],
)
async def test_an_image_that_names_none_is_told(firecracker_home: Home, own: object, told: str) -> None:
    write_own(firecracker_home, forktui=own)
    async with supervisor(firecracker_home) as running:
        (image,) = [one for one in await running.client.images() if one.name == "own"]
        assert image.status == "failed" and image.error is not None and told in image.error


async def test_a_tcp_port_is_asked_until_it_answers(embedded: Home) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        readiness = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        async with supervisor(embedded) as running:
            client = running.client
            await client.create(asked(readiness=readiness))
            await client.wait("web", State.RUNNING, PATIENCE)
            assert (await client.wait("web", State.RUNNING, 0.3, ready=True)).timed_out
            listener.listen()
            assert (await client.wait("web", State.RUNNING, PATIENCE, ready=True)).ready
            await client.delete("web")


def vsock_peer(path: Path) -> socket.socket:
    """Return a listener in the place of the VMM's own, as a guest with a program at a port has it."""
    path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


async def test_a_vsock_port_is_asked_by_the_vmm_until_the_guest_answers(firecracker_home: Home) -> None:
    # In a jail nobody else is believed to be the VMM.
    firecracker_home.options = ("--jail", "off")
    write_own(firecracker_home)
    async with supervisor(firecracker_home) as running:
        client = running.client
        made = await client.create(CreateRequest(name="own", image="own", readiness="vsock:52"))
        directory = firecracker_home.data / "instances" / made.id
        await until_console_says(directory / "console.log", "pass 1")
        # Firecracker itself takes the connection, and pagewalker answers at no port.
        assert (await client.wait("own", State.RUNNING, 0.5, ready=True)).timed_out
        with vsock_peer(directory / "v.sock") as listener:

            def answer() -> bytes:
                connection, _ = listener.accept()
                with connection:
                    line = connection.recv(64)
                    connection.sendall(b"OK 1073741824\n")
                return line

            answering = asyncio.create_task(asyncio.to_thread(answer))
            assert (await client.wait("own", State.RUNNING, PATIENCE, ready=True)).ready
            assert await answering == b"CONNECT 52\n"
        await client.standby("own")
        fork = await client.fork("own", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        assert fork.readiness == "vsock:52" and fork.unready
        await client.delete("own", cascade=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="jails are made by root")
async def test_only_the_vmm_is_asked_in_a_jail_whatever_stands_in_its_place(firecracker_home: Home) -> None:
    write_own(firecracker_home)
    firecracker_home.options = ("--jail", "on")
    async with supervisor(firecracker_home) as running:
        client = running.client
        made = await client.create(CreateRequest(name="own", image="own", readiness="vsock:52"))
        await until_console_says(firecracker_home.data / "instances" / made.id / "console.log", "pass 1")
        with vsock_peer(jail_root(firecracker_home, made.id) / "v.sock") as listener:
            answering = asyncio.create_task(asyncio.to_thread(lambda: listener.accept()[0].recv(64)))
            assert await answering == b"", "it is hung up on, and asked nothing"
            assert (await client.wait("own", State.RUNNING, 0.5, ready=True)).timed_out
        await client.delete("own")


async def test_what_nothing_could_tell_is_refused_before_anything_is_made(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        with pytest.raises(ApiError, match="web: readiness vsock:52 is refused: it has no vsock"):
            await client.create(asked(readiness="vsock:52"))
        assert await client.instances() == []
        await client.create(asked())
        await client.wait("web", State.RUNNING, PATIENCE)
        with pytest.raises(ApiError, match="it has no vsock"):
            await client.wait("web", State.RUNNING, 0.1, readiness="vsock:52")
        await client.standby("web")
        with pytest.raises(ApiError, match="it has no vsock"):
            await client.fork("web", ForkRequest(share_memory=True, target_state="Running", readiness="vsock:52"))
        await client.delete("web")
