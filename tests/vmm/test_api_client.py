"""The API client against peers that misbehave, the requests of a configuration, and what logs say."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from supervisor.errors import BadRequestError, SupervisorError, VmmError
from supervisor.vmm import api_client
from supervisor.vmm.api_client import ApiClient
from supervisor.vmm.configuration import requests
from supervisor.vmm.logs import begin_logs, final_message, last_message

HEADERS_END = b"\r\n\r\n"


@asynccontextmanager
async def answering(path: Path, answer: bytes, close: bool = True) -> AsyncIterator[ApiClient]:
    """Yield a client of a peer that gives every request this answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(HEADERS_END)
        writer.write(answer)
        await writer.drain()
        if not close:
            await reader.read()
        writer.close()

    async def why_gone() -> str:
        return "has ended: for a reason"

    server = await asyncio.start_unix_server(serve, path)
    client = ApiClient(path, "web-1", os.getpid(), why_gone, lambda: True)
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


def response(status: str, body: str) -> bytes:
    """Return an HTTP response."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            response("400 Bad Request", '{"fault_message": "no\\nsuch\\n  thing"}'),
            "web-1: the VMM refused PATCH /vm: no such thing",
        ),
        (response("500 Internal", "out of <order>"), "web-1: the VMM refused PATCH /vm: out of <order>"),
        (response("400 Bad Request", "[]"), "web-1: the VMM refused PATCH /vm: []"),
        (b"garbage\r\n\r\n", "web-1: PATCH /vm was not answered: the VMM has ended: for a reason"),
        (b"", "web-1: PATCH /vm was not answered: the VMM has ended: for a reason"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
            "web-1: PATCH /vm was not answered: the VMM has ended: for a reason",
        ),
    ],
)
async def test_what_is_no_success_is_an_error_of_one_line(run_dir: Path, answer: bytes, message: str) -> None:
    async with answering(run_dir / "s", answer) as client:
        with pytest.raises(VmmError) as refused:
            await client.pause()
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("status", "fault", "failure", "message"),
    [
        ("400 Bad Request", "no vCPUs", BadRequestError, "refused PUT {}: no vCPUs; correct vm.json, or the request"),
        ("413 Too Large", "less.", BadRequestError, "refused PUT {}: less; correct vm.json, or the request"),
        (
            "400 Bad Request",
            "File exists (os error 17)",
            BadRequestError,
            "refused PUT {}: File exists (os error 17); ",
        ),
        ("400 Bad Request", "No memory (os error 12)", VmmError, "refused PUT {}: No memory (os error 12)"),
        ("500 Internal", "out of order", VmmError, "refused PUT {}: out of order"),
    ],
)
async def test_what_is_refused_of_a_configuration_is_its_makers_to_correct(
    run_dir: Path, status: str, fault: str, failure: type[SupervisorError], message: str
) -> None:
    async with answering(run_dir / "s", response(status, f'{{"fault_message": "{fault}"}}')) as client:
        for path, asked in (("/vsock", client.configure("/vsock", {})), ("/actions", client.start())):
            with pytest.raises(failure) as refused:
                await asked
            assert refused.value.message.startswith(f"web-1: the VMM {message.format(path)}")


async def test_what_is_refused_of_a_vm_that_runs_is_no_request_of_a_caller(run_dir: Path) -> None:
    async with answering(run_dir / "s", response("400 Bad Request", "{}")) as client:
        for asked in (client.pause(), client.create_snapshot("state", "mem")):
            with pytest.raises(VmmError):
                await asked


@pytest.mark.parametrize("body", ["garbage", "[]", "{}"])
async def test_a_description_that_is_none_is_refused(run_dir: Path, body: str) -> None:
    async with answering(run_dir / "s", response("200 OK", body)) as client:
        with pytest.raises(VmmError, match=r"^web-1: GET / was answered by what is no VMM: "):
            await client.describe()


NESTED = "[" * 100_000


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_an_answer_that_is_nested_for_ever_is_an_error_like_any(run_dir: Path, status: str) -> None:
    async with answering(run_dir / "s", response(status, NESTED)) as client:
        with pytest.raises(VmmError) as refused:
            await client.describe()
    assert len(refused.value.message) < 2 * api_client.FAULT_LENGTH


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n" + bytes(api_client.ANSWER_BYTES + 1),
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(api_client.ANSWER_BYTES + 1),
    ],
)
async def test_an_answer_without_an_end_is_not_read_on(run_dir: Path, answer: bytes) -> None:
    async with answering(run_dir / "s", answer, close=False) as client:
        with pytest.raises(VmmError, match=r"^web-1: PATCH /vm was answered with more than 1 MiB, by what is no VMM$"):
            await client.pause()


async def test_nothing_is_asked_of_another_process(run_dir: Path) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read())
        writer.close()

    async def why_gone() -> str:
        return "goes on"

    server = await asyncio.start_unix_server(serve, run_dir / "s")
    client = ApiClient(run_dir / "s", "web-1", 1, why_gone, lambda: True)
    with pytest.raises(VmmError) as refused:
        await client.pause()
    assert refused.value.message == (
        f"web-1: its API socket is answered by pid {os.getpid()}, and pid 1 was started: give --firecracker the "
        "program itself, or a script that execs it"
    )
    await client.close()
    server.close()
    await server.wait_closed()
    assert b"".join(asked) == b""


async def test_an_answer_that_does_not_come_is_bounded(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "QUICK", 0.1)
    async with answering(run_dir / "s", b"", close=False) as client:
        with pytest.raises(VmmError, match=r"^web-1: the VMM did not answer GET / within 0 s$"):
            await client.describe()


def test_a_configuration_becomes_requests_in_the_order_in_which_firecracker_applies_it() -> None:
    config = {
        "mmds-config": {"network_interfaces": ["eth0"]},
        "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}],
        "drives": [{"drive_id": "root"}, {"drive_id": "data"}],
        "boot-source": {"kernel_image_path": "kernel"},
        "machine-config": {"vcpu_count": 1},
        "memory-hotplug": {"total_size_mib": 1024},
        "vsock": None,
        "unknown": {},
    }
    assert [path for path, _ in requests(config)] == [
        "/machine-config",
        "/boot-source",
        "/drives/root",
        "/drives/data",
        "/network-interfaces/eth0",
        "/mmds/config",
        "/hotplug/memory",
    ]
    assert dict(requests(config))["/drives/data"] == {"drive_id": "data"}


@pytest.mark.parametrize(
    ("log", "stderr", "words"),
    [
        ("", "", ""),
        ("", "Traceback\nValueError: no\n\n", "ValueError: no"),
        ("2026-01-31T12:00:00.1 [vm:main] broken: [x] y\n", "Error: Debug(form)\n", "broken: [x] y"),
        (
            "2026-01-31T12:00:00.1 [vm:main] RunWithApiError error: why\n"
            "2026-01-31T12:00:00.2 [vm:main] Vmm is stopping.\n"
            "2026-01-31T12:00:00.3 [vm:main] Firecracker exiting with error. exit_code=1\n",
            "",
            "RunWithApiError error: why",
        ),
        ("x" * 10_000, "", "x" * 400),
        ("\udcff\x00\x1b[2J", "", "\ufffd\\x00\\x1b[2J"),
    ],
)
def test_the_last_message_is_the_last_line_that_says_why(tmp_path: Path, log: str, stderr: str, words: str) -> None:
    assert last_message(tmp_path) == ""
    (tmp_path / "vmm.log").write_text(log, errors="surrogateescape")
    (tmp_path / "vmm.stderr").write_text(stderr)
    assert last_message(tmp_path) == words


@pytest.mark.parametrize(
    ("log", "stderr", "words"),
    [
        ("2026-01-31T12:00:00.1 [vm:main] a warning\n", "", ""),
        ("2026-01-31T12:00:00.1 [vm:main] a warning\n", "stack overflow\n", "stack overflow"),
        ("2026-01-31T12:00:00.1 [vm:main] Firecracker panicked at x.rs:1:2:\nbroken\n\n", "", "broken"),
        ("2026-01-31T12:00:00.1 [vm:main] Firecracker panicked at x.rs:1:2:\nx\n2026-01-31T12 [vm:main] on\n", "", ""),
        (
            "2026-01-31T12:00:00.1 [vm:main] a warning\n"
            "2026-01-31T12:00:00.1 [vm:main] Shutting down VM after intercepting a bad syscall (9).\n",
            "",
            "Shutting down VM after intercepting a bad syscall (9).",
        ),
    ],
)
def test_a_final_message_is_one_that_no_vmm_says_and_goes_on(tmp_path: Path, log: str, stderr: str, words: str) -> None:
    assert final_message(tmp_path) == ""
    (tmp_path / "vmm.log").write_text(log)
    (tmp_path / "vmm.stderr").write_text(stderr)
    assert final_message(tmp_path) == words
    for name in ("vmm.log", "vmm.stderr"):
        os.utime(tmp_path / name, (1, 1))
    assert final_message(tmp_path) == last_message(tmp_path) == ""


def test_one_older_log_is_kept(tmp_path: Path) -> None:
    for text in ("first", "second", "third"):
        begin_logs(tmp_path)
        assert (tmp_path / "vmm.log").read_text() == ""
        (tmp_path / "vmm.log").write_text(text)
    assert (tmp_path / "vmm.log.1").read_text() == "second"
