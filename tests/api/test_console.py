"""A guest's console over a WebSocket: what is typed reaches the VMM, what it prints comes byte by byte; and who may."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import httpx
import pytest

from forktui.client.api import ApiError, SupervisorClient
from forktui.client.console import ConsoleConnection, Dropped, open_console
from supervisor.models import Instance
from supervisor.runtime.console_input import MOST_PENDING, PIECE_BYTES
from tests.harness.supervisor_process import PATIENCE, Home, RunningSupervisor, supervisor, until
from tests.harness.supervisor_process import guest as said_by
from tests.harness.verified_guests import standby_source

NOBODY = 65534
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def guest(running: RunningSupervisor) -> Instance:
    """Return a guest that has halted, and prints nothing of its own."""
    source = await standby_source(running.client)
    vm = await running.client.restore(source.id)
    await until(lambda host: said_by(host, vm.name).restored and said_by(host, vm.name).done, running.client)
    return vm


def prints(instance: Instance, data: bytes) -> None:
    """Have an instance's VMM print something."""
    descriptor = os.open(f"/proc/{instance.vmm_pid}/fd/1", os.O_WRONLY)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def keyboard_of(instance: Instance) -> Iterator[int]:
    """Read in the VMM's place, which takes nothing of its standard input."""
    descriptor = os.open(f"/proc/{instance.vmm_pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def taken(descriptor: int, count: int) -> bytes:
    """Return so many bytes once they are there."""
    loop, found, more = asyncio.get_running_loop(), b"", asyncio.Event()
    loop.add_reader(descriptor, more.set)
    try:
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                more.clear()
                with contextlib.suppress(BlockingIOError):
                    found += os.read(descriptor, 65536)
                    continue
                await more.wait()
    finally:
        loop.remove_reader(descriptor)
    return found


async def until_printed(connection: ConsoleConnection, wanted: bytes) -> bytes:
    """Return all that comes until it has these bytes."""
    found = b""
    async with asyncio.timeout(PATIENCE):
        async for piece in connection.printed():
            found += piece if isinstance(piece, bytes) else b""
            if wanted in found:
                return found
    raise AssertionError(f"{wanted!r} did not come: {found!r}, {connection.reason}")


@contextlib.asynccontextmanager
async def typing(client: SupervisorClient, vm: Instance) -> AsyncIterator[ConsoleConnection]:
    async with open_console(client, vm.id, None, watch=False) as connection:
        yield connection


async def test_what_is_typed_reaches_the_vmm_and_what_it_prints_comes_without_a_line_end(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        with keyboard_of(vm) as keyboard:
            async with typing(running.client, vm) as connection:
                await connection.type(b"ls -l\r\x03\xff\x00")
                assert await taken(keyboard, 9) == b"ls -l\r\x03\xff\x00"
                prints(vm, b"\r\nguest login: ")
                assert (await until_printed(connection, b"login: ")).endswith(b"\r\nguest login: ")
                # More than the pipe takes, and faster than a serial port.
                text = os.urandom(3 * PIECE_BYTES + 7)
                await connection.type(text)
                assert await taken(keyboard, len(text)) == text
        position = connection.position
        prints(vm, b"while nobody looked")
        async with open_console(running.client, vm.id, position, watch=True) as again:
            assert await until_printed(again, b"looked") == b"while nobody looked"


async def test_one_at_a_time_types_and_several_watch(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        async with typing(running.client, vm) as first:
            await until_printed(first, b"\n")
            with pytest.raises(
                ApiError, match=r"\(pid \d+\) types into its console already, and one at a time may"
            ) as busy:
                async with typing(running.client, vm):
                    pass
            assert (busy.value.status, busy.value.code) == (409, "console_busy")
            async with open_console(running.client, vm.id, None, watch=True) as watcher:
                prints(vm, b"for both")
                await until_printed(first, b"for both")
                await until_printed(watcher, b"for both")
                await watcher.type(b"x")
                async for _ in watcher.printed():
                    pass
                assert watcher.reason == "this console is only watched"
        # Who has left is in nobody's way.
        async with typing(running.client, vm) as next_one:
            await until_printed(next_one, b"for both")


async def test_it_ends_with_its_vm_and_with_the_supervisor(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        async with typing(running.client, vm) as connection:
            prints(vm, b"last words")
            await running.client.stop(vm.id)
            said = b"".join([piece async for piece in connection.printed() if isinstance(piece, bytes)])
        assert said.endswith(b"last words")
        assert connection.reason == "its VM has ended"
        with pytest.raises(ApiError, match=r"nothing can be typed: it is Stopped, and no VMM runs it"):
            async with typing(running.client, vm):
                pass
        async with open_console(running.client, vm.id, None, watch=True) as watcher:
            async for _ in watcher.printed():
                pass
        assert watcher.reason == "its VM has ended"
        vm = await running.client.start(vm.id)
        async with typing(running.client, vm) as connection:
            await until_printed(connection, b"\n")
            ending = asyncio.create_task(running.end())
            async for _ in connection.printed():
                pass
            assert connection.reason == "the supervisor is stopping"
            assert await ending == 0


async def test_a_guest_that_reads_nothing_holds_nobody_up(embedded: Home) -> None:
    """Its pipe is full: who types can leave, is told of the VM's end, and the supervisor stops in time."""
    async with supervisor(embedded) as running:
        vm = await guest(running)
        async with typing(running.client, vm) as connection:
            await connection.type(bytes(MOST_PENDING + (32 << 10)))
            async with asyncio.timeout(PATIENCE):
                async for piece in connection.printed():
                    if isinstance(piece, Dropped):
                        break
            prints(vm, b"still here")
            await until_printed(connection, b"still here")
        async with typing(running.client, vm) as connection:
            await connection.type(bytes(32 << 10))
            assert await running.end() == 0


async def test_what_is_no_web_socket_or_asks_for_nonsense_is_refused(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        path = f"/instances/{vm.id}/console"
        transport = httpx.AsyncHTTPTransport(uds=str(running.client.socket))
        async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as http:
            plain = await http.get(path)
            assert (plain.status_code, plain.json()["code"]) == (400, "bad_request")
            assert "ask for an upgrade" in plain.json()["message"]
            assert (await http.get(path, params={"position": -1})).status_code == 400
            assert (await http.get(path, params={"typo": 1})).status_code == 400
            assert (await http.get("/instances/nobody/console", headers=UPGRADE)).status_code == 404
        connector = aiohttp.UnixConnector(str(running.client.socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.ws_connect(f"http://localhost{path}") as socket:
                assert json.loads((await socket.receive()).data).keys() == {"position"}
                await socket.send_str("text")
                while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
                assert message.extra == "only binary messages are typed"
            async with session.ws_connect(f"http://localhost{path}", params={"position": str(1 << 60)}) as socket:
                # Of a position that is not reached yet it begins where the log does.
                async with asyncio.timeout(PATIENCE):
                    while (message := await socket.receive()).type is not aiohttp.WSMsgType.BINARY:
                        pass
            async with session.ws_connect(f"http://localhost{path}", max_msg_size=0) as socket:
                with contextlib.suppress(ConnectionError):
                    await socket.send_bytes(bytes(1 << 20))
                async with asyncio.timeout(PATIENCE):
                    while (message := await socket.receive()).type not in (
                        aiohttp.WSMsgType.CLOSE,
                        aiohttp.WSMsgType.CLOSED,
                        aiohttp.WSMsgType.ERROR,
                    ):
                        pass
        assert "Traceback" not in running.log.read_text()


async def test_who_may_only_look_may_not_type(embedded: Home) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    async with supervisor(embedded) as running:
        vm = await guest(running)
        home = embedded.root
        for folder in (home, running.client.socket.parent):
            folder.chmod(0o755)
        running.client.socket.chmod(0o666)
        program = (
            "import http.client, json, os, socket, sys\n"
            f"os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})\n"
            "for watch in ('false', 'true'):\n"
            "    peer = http.client.HTTPConnection('localhost'); peer.sock = socket.socket(socket.AF_UNIX)\n"
            "    peer.sock.connect(sys.argv[1])\n"
            "    peer.request('GET', sys.argv[2] + watch, headers=json.loads(sys.argv[3]))\n"
            "    print(peer.getresponse().status)\n"
        )
        path = f"/instances/{vm.id}/console?watch="
        words = (sys.executable, "-c", program, str(running.client.socket), path, json.dumps(UPGRADE))
        ran = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)
        assert ran.stdout.split() == ["403", "101"]
        assert f"uid {NOBODY} may look but not type" in running.log.read_text() or ran.stderr == ""
        log = running.log.read_text()
        async with typing(running.client, vm):
            pass
        assert f"GET /instances/{vm.id}/console?" not in log
        assert f"GET /instances/{vm.id}/console, to type, by uid 0, pid {os.getpid()}" in running.log.read_text()
