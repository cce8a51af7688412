"""A VMM that runs: its process, its API socket and its end."""

import asyncio
import contextlib
import errno
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Self

from supervisor.concurrency.tasks import beside, to_its_end
from supervisor.consoles.outputs import Holding
from supervisor.errors import STORAGE_ERRNOS, BadRequestError, StorageError, VmmError
from supervisor.system.followed_process import EXIT_NOTICE, OfProcess
from supervisor.system.regular_files import read_regular
from supervisor.vmm.api_client import ApiClient, os_error_in
from supervisor.vmm.api_socket import ApiSocket
from supervisor.vmm.configuration import LARGEST_JSON, requests
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.inotify import creations, until_listening
from supervisor.vmm.logs import begin_logs
from supervisor.vmm.process import Exit, Process
from supervisor.vmm.quarters import Quarters

LISTEN_TIMEOUT: Final = 10.0
"""Seconds from the spawn until the API's socket accepts."""
EXIT_TIMEOUT: Final = 5.0
"""Seconds that a VMM which closed its connection has to end."""


class Vmm(OfProcess[Exit]):
    """One VMM; made by `spawn` or `adopt`."""

    def __init__(self, process: Process, socket: ApiSocket, name: str) -> None:
        super().__init__(process)
        self.api = ApiClient(socket, name, process.pid, self._why_gone, lambda: self.socket_in_place)
        self._process: Process = process
        self._socket = socket
        self._name = name
        self._closing: asyncio.Task[None] | None = None
        process.exited.add_done_callback(self._clean_up)

    @classmethod
    async def spawn(
        cls,
        hypervisor: Hypervisor,
        *,
        instance_id: str,
        quarters: Quarters,
        config_file: str | None,
        consoles: Holding,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        meanwhile: Callable[[int], Coroutine[Any, Any, None]] | None = None,
    ) -> Self:
        """Start a VMM in its quarters; its API answers when this returns.

        With a config file (a path in its directory) its VM runs as well, and is told `metadata`. What is to be done
        with its pid can be done while it starts. Errors call the VM by its `name`, or its id. On failure nothing is
        left but the logs. Raises VmmError, StorageError where the logs cannot be begun, BadRequestError where the
        socket's path is too long or the VMM refuses the configuration, and what `meanwhile` raises.
        """
        name = name or instance_id
        try:
            quarters.socket.make_way(name)
            await asyncio.to_thread(_clear, quarters)
            await consoles.ready()
            async with creations(quarters.socket.path.parent) as created:
                vmm = cls(Process.spawn(hypervisor, instance_id, quarters, consoles), quarters.socket, name)
                try:
                    async with beside((meanwhile or _nothing)(vmm.pid)) as other:
                        await vmm._until_it_listens(created)
                        await other
                    if config_file is not None:
                        await vmm._boot(quarters.directory / config_file, metadata)
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
        quarters: Quarters,
        pid: int,
        start_time: int,
        consoles: Holding,
        name: str | None = None,
    ) -> Self | None:
        """Take over a VMM that another supervisor spawned; None where it has ended, and then its socket is removed."""
        process = Process.adopt(pid, start_time, quarters, consoles)
        if process is None:
            await asyncio.to_thread(quarters.socket.remove)
            return None
        return cls(process, quarters.socket, name or instance_id)

    @property
    def api_socket(self) -> Path:
        """Where its API answers, while what is there is its socket."""
        return self._socket.path

    @property
    def socket_in_place(self) -> bool:
        """Whether its socket is where it was: without it only a connection that is open already reaches its API."""
        return self._socket.in_place

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
            self.api.check_peer(self._socket.listening_pid())

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
        self._socket.clear()

    async def _until_it_listens(self, created: asyncio.Event) -> None:
        socket = self._socket
        look = until_listening(socket.path, created, lambda _: socket.listening_pid())
        listening = asyncio.create_task(look)
        try:
            await asyncio.wait((listening, self.exited), timeout=LISTEN_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                return self.api.check_peer(listening.result())
        finally:
            listening.cancel()
        if self.exited.done():
            told = f"{self._name}: the VMM has ended: {self.exited.result().text}"
            if os_error_in(told) in STORAGE_ERRNOS:
                raise StorageError(f"{told}; free space, or make the data directory writable")
            raise VmmError(told)
        raise VmmError(f"{self._name}: the VMM does not listen on {self._socket.path} after {LISTEN_TIMEOUT:.0f} s")

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
            why = f"cannot be reached: {self._socket.path} is gone" if gone else "closed the connection"
            return f"{why}, and goes on as pid {self.pid}"
        return f"has ended: {self.exited.result().text}"

    def _clean_up(self, exited: asyncio.Future[Exit]) -> None:
        if not exited.cancelled():
            self._socket.clear()
            self._closing = asyncio.create_task(self.api.close())
        self._socket.close()


async def _nothing(pid: int) -> None:
    """What is done beside a start that nobody waits for."""


def _clear(quarters: Quarters) -> None:
    """Put away what an earlier VMM has left in the way of a new one, and begin its logs. Blocks."""
    quarters.clear()
    begin_logs(quarters.directory)


def _explain(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = ""
    if error.errno == errno.EMFILE:
        remedy = "; raise the limit of open files, or fs.inotify.max_user_instances"
    elif error.errno in STORAGE_ERRNOS:
        remedy = "; free space, or make the data directory writable"
    return f"{where}{error.strerror}{remedy}"
