"""The embedded VMM's API socket: what is on it is HTTP, or is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.embedded import VERSION as VMM_VERSION
from supervisor.embedded import config
from supervisor.embedded.http import MAX_BODY_BYTES, MAX_CONNECTIONS, Head, parse_head
from supervisor.embedded.refusals import FaultError, MalformedError
from supervisor.vmm.configuration import devices
from tests.harness.vmm_process import VmmProcess, vmms

VERSION = b"GET /version HTTP/1.1\r\n\r\n"


@pytest.fixture(scope="module")
def vmm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmmProcess]:
    """A VMM that nothing has been asked of."""
    with vmms(tmp_path_factory.mktemp("api")) as start:
        yield start("--level", "Info")


def talk(vmm: VmmProcess, data: bytes) -> bytes:
    """Everything that the VMM answers to `data` until it closes the connection."""
    with vmm.connect() as peer:
        try:
            peer.sendall(data)
        except ConnectionError:
            # It did not read to the end.
            assert len(data) > 4096
        answer = b""
        while piece := _receive(peer):
            answer += piece
        return answer


def _receive(peer: Any) -> bytes:
    try:
        return bytes(peer.recv(65536))
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"\0\xff" * 8192,
        b"\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"GET version HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nname : spaced\r\n\r\n",
        b"PUT /actions HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        b"PUT /actions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"PUT /actions HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"PUT /actions HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"PUT /actions HTTP/1.1\r\nContent-Length: 51201\r\n\r\n" + b" " * 51201,
        b"PUT /actions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_garbage_is_refused_and_the_connection_closed(vmm: VmmProcess, data: bytes) -> None:
    answer = talk(vmm, data + VERSION)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"fault_message") == 1
    assert b"firecracker_version" not in answer
    assert vmm.request("GET", "/")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"\xff\xfe",
        b"[" * MAX_BODY_BYTES,
        b'{"action_type": ' + b"9" * 5000 + b"}",
        b"[]",
        b"null",
        b'{"action_type": 1}',
        b'{"action_type": "Stop"}',
        b'{"action_type": "\\ud800"}',
        b'{"action_type": "SendCtrlAltDel"}',
        b"{}",
    ],
)
def test_a_body_that_is_no_action_is_refused(vmm: VmmProcess, body: bytes) -> None:
    request = b"PUT /actions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    close = b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = talk(vmm, request + close)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"firecracker_version" in answer


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("GET", "/nonsense", None, "Invalid request method and/or path: GET nonsense."),
        ("POST", "/actions", {}, "Invalid request method and/or path: POST actions."),
        ("PUT", "/snapshot/other", {}, "Invalid request method and/or path: PUT snapshot/other."),
        ("GET", "/", {}, "GET request cannot have a body."),
        ("PUT", "/boot-source", None, "Empty PUT request."),
        ("PATCH", "/vm", None, "Empty PATCH request."),
    ],
)
def test_paths_and_methods_that_are_refused(vmm: VmmProcess, method: str, path: str, body: Any, message: str) -> None:
    assert vmm.refusal(method, path, body) == message


def test_requests_may_come_in_pieces_and_together(vmm: VmmProcess) -> None:
    with vmm.connect() as peer:
        for byte in VERSION:
            peer.sendall(bytes([byte]))
        peer.sendall(VERSION + b"GET http://localhost/version HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := peer.recv(4096):
            answer += piece
    assert answer.count(b'{"firecracker_version"') == 3


def test_a_body_that_is_announced_is_asked_for(vmm: VmmProcess) -> None:
    with vmm.connect() as peer:
        peer.sendall(b"PUT /actions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert peer.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(b"{}")
        assert b"missing field `action_type`" in peer.recv(4096)


def test_connections_are_limited(vmm: VmmProcess) -> None:
    peers = [vmm.connect() for _ in range(MAX_CONNECTIONS)]
    try:
        for peer in peers:
            peer.sendall(VERSION)
            assert peer.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        with vmm.connect() as peer:
            assert peer.recv(4096).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    finally:
        for peer in peers:
            peer.close()


def test_parse_head() -> None:
    head = b"PUT /vm HTTP/1.1\r\ncontent-length:  7 \r\nConnection: Close\r\nExpect: 100-Continue"
    assert parse_head(head) == Head("PUT", "/vm", 7, keep_alive=False, expects_continue=True)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (config.boot_source, {"kernel_image_path": "a\0b"}, "holds a NUL"),
        (config.vm_state, {"state": "Stopped"}, "unknown variant `Stopped`, expected one of `Paused`, `Resumed`"),
        (config.machine_config, {"vcpu_count": True, "mem_size_mib": 64}, "invalid type: bool true"),
        (config.machine_config, {"vcpu_count": 1.5, "mem_size_mib": 64}, "invalid type: float 1.5"),
        (
            config.snapshot_create,
            {"snapshot_path": "s", "mem_file_path": "m", "snapshot_type": "Half"},
            "unknown variant `Half`, expected one of `Diff`, `Full`",
        ),
        (config.snapshot_load, {"snapshot_path": "s"}, "missing field: either `mem_backend` or `mem_file_path`"),
        (
            config.snapshot_load,
            {"snapshot_path": "s", "mem_file_path": "m", "mem_backend": {}},
            "too many fields: either `mem_backend` or `mem_file_path` exclusively is required",
        ),
        (
            config.snapshot_load,
            {"snapshot_path": "s", "mem_backend": {"backend_type": "Disk", "backend_path": "m"}},
            "unknown variant `Disk`, expected one of `File`, `Uffd`",
        ),
    ],
)
def test_malformed_values(parse: Any, value: Any, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse(value)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (config.boot_source, {"kernel_image_path": "k", "boot_args": "x" * 2048}, "less than 2048 bytes"),
        (config.boot_source, {"kernel_image_path": "k", "boot_args": "a\nb"}, "printable ASCII"),
        (config.boot_source, {"kernel_image_path": "k", "initrd_path": "i"}, "takes no initrd"),
        (config.machine_config, {"vcpu_count": 3, "mem_size_mib": 64, "smt": True}, "even number if SMT"),
        (config.machine_config, {"vcpu_count": 1, "mem_size_mib": 64, "huge_pages": "2M"}, "4 KiB only"),
        (config.machine_config, {"vcpu_count": 1, "mem_size_mib": 64, "cpu_template": "T2"}, "no templates"),
        (config.machine_config, {"vcpu_count": 1, "mem_size_mib": 0}, "1 to 261120 MiB"),
    ],
)
def test_values_that_cannot_be_used(parse: Any, value: Any, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        parse(value)


def test_unknown_sections_of_a_config_file_are_ignored(tmp_path: Path) -> None:
    value: dict[str, Any] = {"boot-source": {"kernel_image_path": "k"}, "drives": [], "balloon": None, "future": 1}
    assert config.vm_config(value) == config.VmConfig(config.BootSource("k", ""), config.MachineConfig())


def test_it_answers_as_the_version_that_it_is_told(tmp_path: Path) -> None:
    with vmms(tmp_path) as start:
        told, own = start("--answer-as", "1.14.0"), start()
        assert told.request("GET", "/version") == (200, {"firecracker_version": "1.14.0"})
        assert told.request("GET", "/")[1]["vmm_version"] == "1.14.0"
        assert own.request("GET", "/version") == (200, {"firecracker_version": VMM_VERSION})


@pytest.mark.parametrize(
    ("version", "refused"),
    [("1.12.1", ("track_dirty_pages",)), ("1.13.0", ()), ("2.0.0-dev", ()), (None, ())],
)
def test_a_load_has_the_fields_of_the_version_that_it_answers_as(
    tmp_path: Path, version: str | None, refused: tuple[str, ...]
) -> None:
    body = {"snapshot_path": "none", "mem_backend": {"backend_type": "File", "backend_path": "none"}}
    with vmms(tmp_path) as start:
        for field in ("track_dirty_pages", "enable_diff_snapshots"):
            vmm = start(*(("--answer-as", version) if version else ()))
            refusal = vmm.refusal("PUT", "/snapshot/load", {**body, field: True})
            assert (f"unknown field `{field}`" in refusal) is (field in refused)
            assert ("No such file" in refusal) is (field not in refused)


def test_the_whole_configuration_has_the_devices(tmp_path: Path) -> None:
    with vmms(tmp_path) as start:
        vmm = start()
        assert devices(vmm.request("GET", "/vm/config")[1]) == frozenset()
        vmm.do("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": False})
        assert devices(vmm.request("GET", "/vm/config")[1]) == {"balloon"}
        vmm.do("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": False, "stats_polling_interval_s": 1})
        assert devices(vmm.request("GET", "/vm/config")[1]) == {"balloon", "balloon-statistics"}


def test_devices_are_read_of_a_whole_configuration() -> None:
    drives = [{"drive_id": "a", "io_engine": "Sync"}, {"drive_id": "b", "io_engine": "Async"}]
    whole = {"drives": drives, "vsock": {"guest_cid": 3}, "memory-hotplug": {"total_size_mib": 1}, "balloon": None}
    assert devices(whole) == {"async-drive", "vsock", "memory-hotplug"}
    assert devices({"drives": drives[:1]}) == frozenset()
