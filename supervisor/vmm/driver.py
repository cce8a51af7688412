"""A VMM that runs: its process, its API socket and its end."""

import asyncio
import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Self

from supervisor.concurrency.tasks import beside, to_its_end
from supervisor.consoles.outputs import Holding
from supervisor.errors import STORAGE_ERRNOS, BadRequestError, StorageError, VmmError
from supervisor.system.followed_process import EXIT_NOTICE, OfProcess
from supervisor.system.regular_files import read_regular
from supervisor.system.same_file import is_at, status_at
from supervisor.system.unix_sockets import connect, is_stale, listening_pid, remove_file, remove_stale, too_long
from supervisor.vmm.api_client import ApiClient
from supervisor.vmm.configuration import LARGEST_JSON, requests
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.inotify import creations, until_listening
from supervisor.vmm.logs import LOG_LEVEL, LOG_TARGET, begin_logs
from supervisor.vmm.process import Exit, Process

LISTEN_TIMEOUT: Final = 10.0
"""Seconds from the spawn until the API's socket accepts."""
EXIT_TIMEOUT: Final = 5.0
"""Seconds that a VMM which closed its connection has to end."""


class Vmm(OfProcess[Exit]):
    """One VMM; made by `spawn` or `adopt`."""

    def __init__(self, process: Process, api_socket: Path, name: str) -> None:
        super().__init__(process)
        self.api = ApiClient(api_socket, name, process.pid, self._why_gone, lambda: self.socket_in_place)
        self._process: Process = process
        self._api_socket = api_socket
        self._name = name
        self._closing: asyncio.Task[None] | None = None
        self._socket_file = _socket_at(api_socket)
        """What it listens at: a Unix socket is found by its file, and no other at its path is this one."""
        process.exited.add_done_callback(self._clean_up)

    @classmethod
    async def spawn(
        cls,
        hypervisor: Hypervisor,
        *,
        instance_id: str,
        directory: Path,
        api_socket: Path,
        config_file: str | None,
        consoles: Holding,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        meanwhile: Callable[[int], Coroutine[Any, Any, None]] | None = None,
    ) -> Self:
        """Start a VMM with `directory` as its working directory; its API answers when this returns.

        With a config file (a path in `directory`) its VM runs as well, and is told `metadata`. What is to be done with
        its pid can be done while it starts. Errors call the VM by its `name`, or its id. On failure nothing is left but
        the logs. Raises VmmError, StorageError where the logs cannot be begun, BadRequestError where the socket's path
        is too long or the VMM refuses the configuration, and what `meanwhile` raises.
        """
        name = name or instance_id
        try:
            api_socket = _free_path(api_socket, name)
            await asyncio.to_thread(_clear, directory)
            log = ("--log-path", LOG_TARGET, "--level", LOG_LEVEL, "--show-level")
            options = ("--api-sock", str(api_socket), "--id", instance_id, *log)
            await consoles.ready()
            async with creations(api_socket.parent) as created:
                command = (*hypervisor.command, *options)
                vmm = cls(Process.spawn(command, directory=directory, consoles=consoles), api_socket, name)
                try:
                    async with beside((meanwhile or _nothing)(vmm.pid)) as other:
                        await vmm._until_it_listens(created)
                        await other
                    if config_file is not None:
                        await vmm._boot(directory / config_file, metadata)
                except BaseException:
                    await to_its_end(vmm._abandon())
                    raise
        except OSError as error:
            failure = StorageError if error.errno in STORAGE_ERRNOS else VmmError
            raise failure(f"{name}: {hypervisor.name} cannot be started: {_explain(error)}") from error
        return vmm

    @classmethod
    async def adopt(
        cls,
        *,
        instance_id: str,
        directory: Path,
        api_socket: Path,
        pid: int,
        start_time: int,
        consoles: Holding,
        name: str | None = None,
    ) -> Self | None:
        """Take over a VMM that another supervisor spawned; None where it has ended, and then its socket is removed."""
        process = Process.adopt(pid, start_time, directory=directory, consoles=consoles)
        if process is None:
            await asyncio.to_thread(remove_file, api_socket)
            return None
        return cls(process, api_socket, name or instance_id)

    @property
    def api_socket(self) -> Path:
        """Where its API answers, while what is there is its socket."""
        return self._api_socket

    @property
    def socket_in_place(self) -> bool:
        """Whether its socket is where it was: without it only a connection that is open already reaches its API."""
        return is_at(self._api_socket, self._socket_file)

    @property
    def reachable(self) -> bool:
        """Whether there is a way to its API: its socket, or else a connection that is open already.

        Also where it does not answer: nothing closes that connection before the VMM's end, and it is asked once it
        answers again.
        """
        return self.socket_in_place or self.api.connected

    def check_listener(self) -> None:
        """Raise VmmError where another process listens at its API socket; one that nobody listens at is no other's."""
        with contextlib.suppress(OSError):
            self.api.check_peer(listening_pid(self._api_socket))

    def kill(self) -> None:
        """Kill the VMM without waiting; `exited` tells when it is gone."""
        self._process.kill()

    async def terminate(self) -> None:
        """Kill the VMM and wait until it, what it started and its socket are gone; raises VmmError where one stays."""
        await self._process.terminate()
        await self.api.close()

    async def disconnect(self) -> None:
        """Let go of the VMM, which goes on."""
        self._process.disconnect()
        await self.api.close()

    async def _abandon(self) -> None:
        """End a VMM that came to nothing; it may have come to listen when nobody looked any more."""
        await self.terminate()
        if _socket_at(self._api_socket) is not None and connect(self._api_socket) == errno.ECONNREFUSED:
            remove_file(self._api_socket)

    async def _until_it_listens(self, created: asyncio.Event) -> None:
        listening = asyncio.create_task(until_listening(self._api_socket, created))
        try:
            await asyncio.wait((listening, self.exited), timeout=LISTEN_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                self._socket_file = _socket_at(self._api_socket)
                return self.api.check_peer(listening.result())
        finally:
            listening.cancel()
        if self.exited.done():
            raise VmmError(f"{self._name}: the VMM has ended: {self.exited.result().text}")
        raise VmmError(f"{self._name}: the VMM does not listen on {self._api_socket} after {LISTEN_TIMEOUT:.0f} s")

    async def _boot(self, config_file: Path, metadata: Mapping[str, Any] | None) -> None:
        """Configure and start the VM by requests.

        Not by --config-file: the API accepts before that VM is built, and a request that meets a failing build kills
        Firecracker 1.12 (its API thread panics) before it says why. And each request has an answer of its own.
        Raises VmmError, and BadRequestError where the configuration cannot be used.
        """
        try:
            text = await asyncio.to_thread(read_regular, config_file, LARGEST_JSON)
        except OSError as error:
            raise VmmError(f"{self._name}: {config_file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise VmmError(f"{self._name}: {config_file} cannot be read: {error}") from error
        try:
            configuration = list(requests(json.loads(text)))
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"{self._name}: {config_file.name} is not a VM's configuration: {error}") from error
        for path, body in configuration:
            await self.api.configure(path, body)
        if metadata is not None:
            await self.api.put_metadata(metadata)
        await self.api.start()

    async def _why_gone(self) -> str:
        gone = not self.socket_in_place
        # Where its socket is gone that may be why nothing was answered.
        await asyncio.wait((self.exited,), timeout=EXIT_NOTICE if gone else EXIT_TIMEOUT)
        if not self.exited.done() or self.exited.cancelled():
            why = f"cannot be reached: {self._api_socket} is gone" if gone else "closed the connection"
            return f"{why}, and goes on as pid {self.pid}"
        return f"has ended: {self.exited.result().text}"

    def _clean_up(self, exited: asyncio.Future[Exit]) -> None:
        if not exited.cancelled():
            # Its end may have come between its bind(2) and the note of its socket.
            if self.socket_in_place or is_stale(self._api_socket):
                self._api_socket.unlink(missing_ok=True)
            self._closing = asyncio.create_task(self.api.close())


def _socket_at(path: Path) -> os.stat_result | None:
    status = status_at(path)
    return status if status is not None and stat.S_ISSOCK(status.st_mode) else None


async def _nothing(pid: int) -> None:
    """What is done beside a start that nobody waits for."""


def _clear(directory: Path) -> None:
    """Put away what an earlier VMM has left in the directory of a new one, and begin its logs. Blocks."""
    # A vsock device binds its uds_path, and finds the socket there of the VMM before, which was killed.
    remove_stale(directory)
    begin_logs(directory)


def _free_path(api_socket: Path, name: str) -> Path:
    """Return the socket's absolute path, checked, and free of the stale socket of a VMM that died."""
    api_socket = api_socket.absolute()
    problem = too_long(api_socket)
    if problem:
        raise BadRequestError(f"{name}: {api_socket}: {problem}: choose a shorter --run-dir")
    try:
        mode = api_socket.lstat().st_mode
    except FileNotFoundError:
        return api_socket
    if not stat.S_ISSOCK(mode):
        raise VmmError(f"{name}: {api_socket} is in the way of its API socket: remove it")
    if connect(api_socket) == 0:
        raise VmmError(f"{name}: another VMM listens on {api_socket}: end it first")
    api_socket.unlink(missing_ok=True)
    return api_socket


def _explain(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = ""
    if error.errno == errno.EMFILE:
        remedy = "; raise the limit of open files, or fs.inotify.max_user_instances"
    elif error.errno in STORAGE_ERRNOS:
        remedy = "; free space, or make the data directory writable"
    return f"{where}{error.strerror}{remedy}"
