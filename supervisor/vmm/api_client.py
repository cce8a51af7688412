"""Firecracker's API over a VMM's Unix socket, as far as the supervisor uses it."""

import errno
import json
import os
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple, cast

import aiohttp

from supervisor.errors import (
    STORAGE_ERRNOS,
    BadRequestError,
    StorageError,
    VmmError,
    VmmRefusedError,
    VmmSilentError,
)
from supervisor.system.log_text import one_line
from supervisor.vmm.configuration import Device, devices
from supervisor.vmm.exchanges import Exchanges
from supervisor.vmm.peer_connector import EndlessAnswerError, PeerConnector

BackendType = Literal["File", "Uffd"]
SnapshotType = Literal["Full", "Diff"]
VmState = Literal["Not started", "Running", "Paused"]
TrackingField = Literal["enable_diff_snapshots", "track_dirty_pages"]

QUICK: Final = 10.0
"""Seconds for a request that waits for no disk and no guest."""
PAUSE: Final = 40.0
"""Firecracker itself gives its vCPUs 30 s (RECV_TIMEOUT_SEC in its src/vmm/src/lib.rs)."""
BOOT: Final = 60.0
LOAD: Final = 60.0
"""With the backend Uffd a load also waits for the page server's accept."""
SNAPSHOT: Final = 600.0
"""It writes all of the guest's memory to disk."""

KEPT: Final = 10.0 * 365 * 86400
"""Seconds that a connection is kept, which neither side closes before its end: over it the VMM is reached also when
somebody has removed its socket."""
ANSWER_BYTES: Final = 1 << 20
"""More than Firecracker has to say of a VM of any number of devices, heads and all."""
FAULT_LENGTH: Final = 1000
"""Characters of a refusal that are told."""

_COMPACT: Final = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
_MALFORMED: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What comes of reading JSON that is not what was expected, or is nested for ever."""
_WORD: Final = re.compile("[A-Za-z0-9 ._+-]{1,64}")
"""An id, a state or a version: Firecracker's ids have at most 64 characters."""
_OS_ERROR: Final = re.compile(r"(?:\(os error|\bcode:) ([0-9]+)")
"""In a fault_message, as Rust shows an io::Error, or as it does inside another error."""
_HOST_ERRNOS: Final = STORAGE_ERRNOS | {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
"""What the host has no more of is not wrong with a configuration."""


@dataclass(frozen=True)
class VmDescription:
    """The answer to `GET /`."""

    id: str
    state: VmState
    version: str


class _Answer(NamedTuple):
    status: int
    body: bytes


class ApiClient:
    """One VMM's API; every method raises VmmError, which names the VM, the request and the reason.

    What is refused of a guest's configuration is a BadRequestError, with the VMM's words.

    Nothing is asked of a process that is not the VMM, `pid`. Paths of files are relative to the VMM's working
    directory. `why_gone` says how the process ended, once it has. While a new connection cannot be had
    (`can_reconnect`), a request that is cancelled or not answered in time is still answered before the next is sent.
    """

    def __init__(
        self,
        socket: os.PathLike[str],
        name: str,
        pid: int,
        why_gone: Callable[[], Awaitable[str]],
        can_reconnect: Callable[[], bool],
    ) -> None:
        self._name = name
        self._pid = pid
        self._why_gone = why_gone
        self._connector = PeerConnector(socket, self.check_peer, limit=ANSWER_BYTES, keepalive_timeout=KEPT)
        self._exchanges = Exchanges[_Answer](can_reconnect)
        self._session = aiohttp.ClientSession(
            "http://localhost",
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(),
        )

    @property
    def connected(self) -> bool:
        """Whether a connection is open, over which it is asked, or waits for an answer, without the socket."""
        return self._connector.connected

    def check_peer(self, pid: int) -> None:
        """Raise VmmError where who answers is not the process that was started."""
        if pid != self._pid:
            raise VmmError(
                f"{self._name}: its API socket is answered by pid {pid}, and pid {self._pid} was started: give "
                "--firecracker the program itself, or a script that execs it"
            )

    async def describe(self) -> VmDescription:
        """Return what VM this is, and its state."""
        text = await self._request("GET", "/", None, QUICK)
        try:
            answer = json.loads(text)
            return VmDescription(
                _word(answer["id"]), cast(VmState, _word(answer["state"])), _word(answer["vmm_version"])
            )
        except _MALFORMED as error:
            raise VmmError(f"{self._name}: GET / was answered by what is no VMM: {_fault(text)[:80]}") from error

    async def configure(self, path: str, body: Any) -> None:
        """Set one part of the configuration of a VM that is not started; BadRequestError where that is refused."""
        await self._put(path, body, QUICK)

    async def put_metadata(self, document: Any) -> None:
        """Have the guest told this by MMDS, in the place of all that it was told; raises BadRequestError."""
        await self._put("/mmds", document, QUICK)

    async def start(self) -> None:
        """Boot the VM that was configured; BadRequestError where its configuration is refused as a whole."""
        await self._put("/actions", {"action_type": "InstanceStart"}, BOOT)

    async def pause(self) -> None:
        """Stop the vCPUs."""
        await self._request("PATCH", "/vm", {"state": "Paused"}, PAUSE)

    async def resume(self, seconds: float = PAUSE) -> None:
        """Let the vCPUs run on."""
        await self._request("PATCH", "/vm", {"state": "Resumed"}, seconds)

    async def create_snapshot(
        self, snapshot_path: str, mem_file_path: str, snapshot_type: SnapshotType = "Full"
    ) -> None:
        """Write the state-file and the mem-file of a paused VM; the files are not synced to the disk.

        Either type resets the dirty log. A Diff has the pages that were written since the last snapshot, the load or
        the boot, and is a sparse file with holes between them; one that is there already is written into. Raises
        StorageError where the disk does not take it.
        """
        body = {"snapshot_type": snapshot_type, "snapshot_path": snapshot_path, "mem_file_path": mem_file_path}
        try:
            await self._request("PUT", "/snapshot/create", body, SNAPSHOT)
        except VmmError as error:
            if os_error_in(error.message) not in STORAGE_ERRNOS:
                raise
            raise StorageError(f"{error.message}; free space, or make the data directory writable") from error

    async def load_snapshot(
        self,
        snapshot_path: str,
        backend_type: BackendType,
        backend_path: str,
        *,
        resume: bool,
        fields: Collection[str] = (),
    ) -> None:
        """Load a snapshot into a VMM that has no VM; `backend_path` is a mem-file, or a page server's socket (Uffd).

        Without `resume` the VM is paused. `fields` are others that are true, as they are called by this VMM's version.
        """
        body = {
            "snapshot_path": snapshot_path,
            "mem_backend": {"backend_type": backend_type, "backend_path": backend_path},
            "resume_vm": resume,
            **dict.fromkeys(fields, True),
        }
        await self._request("PUT", "/snapshot/load", body, LOAD)

    async def version(self) -> str:
        """Return the VMM's version."""
        text = await self._request("GET", "/version", None, QUICK)
        try:
            return _word(json.loads(text)["firecracker_version"])
        except _MALFORMED as error:
            raise VmmError(f"{self._name}: GET /version was not answered by a VMM: {_fault(text)[:80]}") from error

    async def devices(self) -> frozenset[Device]:
        """Return which of the devices that matter here the VM has."""
        text = await self._request("GET", "/vm/config", None, QUICK)
        try:
            return devices(json.loads(text))
        except _MALFORMED as error:
            raise VmmError(f"{self._name}: GET /vm/config was not answered by a VMM: {_fault(text)[:80]}") from error

    async def close(self) -> None:
        """Close the connection; what is asked over it fails."""
        await self._session.close()
        await self._exchanges.all_ended()

    async def _put(self, path: str, body: Any, seconds: float) -> None:
        """Say what a guest is to have; what is refused of it is the caller's to correct."""
        try:
            await self._request("PUT", path, body, seconds)
        except VmmRefusedError as error:
            if os_error_in(error.message) in _HOST_ERRNOS:
                raise
            raise BadRequestError(f"{error.message.rstrip('.')}; correct vm.json, or the request") from error

    async def _request(self, method: str, path: str, body: Any, seconds: float) -> bytes:
        if self._session.closed:
            raise VmmError(f"{self._name}: {method} {path} was not sent: the VMM {await self._why_gone()}")
        try:
            answer = await self._exchanges.wait_for(partial(self._exchange, method, path, body), seconds)
        except TimeoutError as error:
            raise VmmSilentError(
                f"{self._name}: the VMM did not answer {method} {path} within {seconds:.0f} s"
            ) from error
        except EndlessAnswerError as error:
            raise VmmError(
                f"{self._name}: {method} {path} was answered with more than {ANSWER_BYTES >> 20} MiB, by what is no VMM"
            ) from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise VmmError(
                    f"{self._name}: {method} {path} was not sent: {error.strerror}; raise the limit of open files"
                ) from error
            # RuntimeError is aiohttp's for a session that is closed, as it is once the VMM has ended.
            why = await self._why_gone()
            raise VmmError(f"{self._name}: {method} {path} was not answered: the VMM {why}") from error
        if not 200 <= answer.status < 300:
            failure = VmmRefusedError if 400 <= answer.status < 500 else VmmError
            raise failure(f"{self._name}: the VMM refused {method} {path}: {_fault(answer.body)}")
        return answer.body

    async def _exchange(self, method: str, path: str, body: Any) -> _Answer:
        # Firecracker counts the bytes of what it is told.
        data = None if body is None else aiohttp.JsonPayload(body, dumps=_COMPACT)
        async with self._session.request(method, path, data=data, allow_redirects=False) as answer:
            return _Answer(answer.status, await answer.read())


def _word(told: object) -> str:
    """Return a word that a VMM has said; raises ValueError of anything else."""
    if not isinstance(told, str) or _WORD.fullmatch(told) is None:
        raise ValueError("not a word")
    return told


def _fault(text: bytes) -> str:
    """Return Firecracker's fault_message as one line; whatever else came, as it is, and of much its beginning."""
    try:
        message = str(json.loads(text)["fault_message"])
    except _MALFORMED:
        message = text.decode(errors="replace")
    return one_line(" ".join(message[:FAULT_LENGTH].split()))


def os_error_in(message: str) -> int | None:
    """Return the number of what a system call has failed with, where a VMM says it."""
    number = _OS_ERROR.search(message)
    return None if number is None else int(number[1])
