"""The socket of the API: which path may be one, whose it is, and what is said where nobody listens."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forktui.client.api import SupervisorClient, SupervisorUnreachableError
from supervisor.api import server as server_module
from supervisor.api.server import serve
from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.host.host import Host
from supervisor.settings import Settings
from supervisor.system.lock_file import LockFile, exclusively
from tests.harness.supervisor_process import PATIENCE

OTHER = 12345
HOLDS = """
import fcntl, os, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
fcntl.flock(os.open(sys.argv[2], os.O_CREAT | os.O_RDWR, 0o666), fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


async def test_a_socket_path_that_cannot_be_is_refused(host: Host, run_dir: Path) -> None:
    """Too long for sun_path, or taken by a file."""
    with pytest.raises(BadRequestError, match="107 bytes"):
        await serve(host, run_dir / ("x" * 107))
    (run_dir / "file").write_text("kept")
    with pytest.raises(BadRequestError, match="not a socket"):
        await serve(host, run_dir / "file")
    assert (run_dir / "file").read_text() == "kept"


async def test_a_live_socket_is_refused_and_a_stale_one_replaced(host: Host, run_dir: Path) -> None:
    """What a killed supervisor left does not stop the next one."""
    path = run_dir / "s.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen(1)
        with pytest.raises(InvalidStateError, match="another supervisor listens"):
            await serve(host, path)
    server = await serve(host, path)
    async with SupervisorClient(path) as client:
        await client.health()
        await server.close()
        assert not path.exists()
        with pytest.raises(SupervisorUnreachableError, match="no supervisor listens"):
            await client.health()


async def test_a_closing_server_leaves_a_socket_that_is_not_its_own(host: Host, run_dir: Path) -> None:
    """Somebody may have removed it and bound another."""
    path = run_dir / "s.sock"
    server = await serve(host, path)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        await server.close()
        assert path.is_socket()


async def test_a_server_that_is_cancelled_while_it_binds_leaves_no_socket(
    host: Host, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_dir / "s.sock"
    bind, begun, bound = server_module._bind, threading.Event(), threading.Event()

    def told(at: Path) -> tuple[socket.socket, os.stat_result]:
        begun.set()
        try:
            return bind(at)
        finally:
            bound.set()

    monkeypatch.setattr(server_module, "_bind", told)
    with exclusively(run_dir / ".s.sock.lock", PATIENCE):
        serving = asyncio.create_task(serve(host, path))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        serving.cancel()
        await asyncio.wait((serving,), timeout=0)
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await asyncio.to_thread(bound.wait, PATIENCE)
    assert not path.exists()


async def test_a_lock_that_is_not_given_back_does_not_block_the_start(
    host: Host, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a process that was stopped."""
    monkeypatch.setattr(server_module, "LOCK_SECONDS", 0.1)
    lock = LockFile(run_dir / ".s.sock.lock")
    assert lock.acquire()
    try:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(OSError, match=r"somebody has held it for 0\.1 s"):
                await serve(host, run_dir / "s.sock")
    finally:
        lock.release()
    await (await serve(host, run_dir / "s.sock")).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="root, to become another user")
async def test_a_lock_that_somebody_else_has_put_there_does_not_block_the_start(host: Host, run_dir: Path) -> None:
    """In /tmp anybody can, and hold it for ever."""
    with held_by_another(run_dir / ".s.sock.lock"):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(OSError, match=rf"it belongs to uid {OTHER}|Permission denied"):
                await serve(host, run_dir / "s.sock")


@contextlib.contextmanager
def held_by_another(lock: Path) -> Iterator[None]:
    """Have another user make a lock file, in a directory that is open to all, and hold it."""
    lock.parent.chmod(0o1777)
    command = (sys.executable, "-I", "-c", HOLDS, str(OTHER), str(lock))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        yield
        other.communicate()


async def test_a_server_that_cannot_be_watched_is_not_in_place_and_may_be_tried_again(
    host: Host, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = run_dir / "s.sock"
    server = await serve(host, path)
    path.unlink()
    with monkeypatch.context() as full:
        full.setattr(asyncio.get_running_loop(), "add_reader", refuse)
        with pytest.raises(OSError, match="No space left"):
            await server.listen()
    assert not server.in_place
    assert not path.exists()
    await server.listen()
    assert server.in_place
    async with SupervisorClient(path) as client:
        await client.health()
    await server.close()
    assert not path.exists()


async def test_a_firecracker_that_was_named_and_cannot_run_is_told_of(
    run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With `auto` the VMs run on the embedded VMM then, which is not what was meant."""
    named = Settings(data_dir=run_dir / "data", run_dir=run_dir, hypervisor="auto", firecracker=Path("/nowhere/fc"))
    named.data_dir.mkdir()
    await (await Host.open(named)).close()
    assert "no VM runs on firecracker: /nowhere/fc cannot be run: No such file or directory" in caplog.text


async def test_who_cannot_reach_a_supervisor_is_told_why(run_dir: Path) -> None:
    """No socket, a dead one, one that is no socket path at all, and one that hangs up."""
    path = run_dir / "none.sock"
    for prepare, words in ((None, "no supervisor listens"), (socket.SOCK_STREAM, "is gone")):
        if prepare:
            with socket.socket(socket.AF_UNIX, prepare) as dead:
                dead.bind(str(path))
        async with SupervisorClient(path) as client:
            with pytest.raises(SupervisorUnreachableError, match=words) as caught:
                await client.instances()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    async with SupervisorClient(run_dir / ("x" * 200)) as client:
        with pytest.raises(SupervisorUnreachableError):
            await client.instances()
    with hanging_up(run_dir / "rude.sock") as rude:
        async with SupervisorClient(rude) as client:
            with pytest.raises(SupervisorUnreachableError, match="connection was lost"):
                await client.stop("a")


@contextlib.contextmanager
def hanging_up(path: Path) -> Iterator[Path]:
    """Serve a socket whose listener reads a request and closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(4)

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    peer.recv(65536)
                    peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
