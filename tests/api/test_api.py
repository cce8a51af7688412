"""The API of a real supervisor: through hypeman's SDK unchanged, our client, and whatever else knocks."""

import asyncio
import contextlib
import json
import os
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import hypeman
import pytest

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from supervisor.api.server import serve
from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.host.host import Host
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest, State
from supervisor.settings import Settings
from tests.harness.supervisor_process import PATIENCE, Home

NOBODY = 65534


@dataclass(frozen=True)
class Served:
    """A supervisor that the tests of this file share."""

    socket: Path
    log: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = Home(Path(tmp_path_factory.mktemp("ft")))
    log = home.root / "supervisor.log"
    with log.open("wb") as errors, subprocess.Popen(home.command(), stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], PATIENCE)[0], "the supervisor is not ready"
            assert process.stdout.readline().decode() == f"ready {home.socket}\n", log.read_text()
            yield Served(home.socket, log)
            process.terminate()
            assert process.wait(PATIENCE) == 0, log.read_text()
        finally:
            home.kill_everything()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[SupervisorClient]:
    async with SupervisorClient(served.socket) as made:
        yield made
        for _ in range(2):
            for instance in await made.instances():
                with contextlib.suppress(ApiError):
                    await made.delete(instance.id)
        assert await made.instances() == []


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url="http://localhost", transport=httpx.HTTPTransport(uds=str(served.socket))) as made:
        yield made


@pytest.fixture
async def host(run_dir: Path) -> AsyncIterator[Host]:
    settings = Settings(data_dir=run_dir / "data", run_dir=run_dir, hypervisor="embedded")
    settings.data_dir.mkdir()
    opened = await Host.open(settings)
    yield opened
    await opened.close()


async def refused(work: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work  # type: ignore[misc]
    return caught.value


class Counting(httpx.HTTPTransport):
    """A transport that counts its requests."""

    requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return super().handle_request(request)


def test_hypemans_sdk_drives_the_main_job_unchanged(served: Served, http: httpx.Client) -> None:
    """Create, standby, share_memory fork, a refused restore asked once, wait, logs, stats, delete."""
    transport = Counting(uds=str(served.socket))
    sdk = hypeman.Hypeman(api_key="x", base_url="http://localhost", http_client=httpx.Client(transport=transport))
    assert sdk.health.check().status == "ok"
    assert sdk.capabilities.get().default_runtime.name == "embedded"

    source = sdk.instances.create(name="sdk-source", image="pagewalker", size="128MB", vcpus=1, env={"A": "b"})
    assert (source.name, source.image, source.vcpus) == ("sdk-source", "pagewalker", 1)
    assert sdk.instances.wait("sdk-source", state="Running", api_timeout="30s").state == "Running"
    assert [one.id for one in sdk.instances.list()] == [source.id]
    assert sdk.instances.list(state="Stopped") == []
    assert sdk.instances.get(source.id[:8]).id == source.id
    assert sdk.instances.standby("sdk-source").state == "Standby"

    fork = sdk.instances.fork("sdk-source", name="sdk-fork", target_state="Running", extra_body={"share_memory": True})
    assert fork.state == "Running"
    locked = sdk.instances.get("sdk-source")
    assert locked.model_extra is not None
    assert (locked.model_extra["fork_count"], locked.model_extra["mem_locked"]) == (1, True)
    assert locked.model_extra["locked_by"] == ["sdk-fork"]
    for verb in (sdk.instances.restore, sdk.instances.start, sdk.instances.delete):
        before = transport.requests
        with pytest.raises(hypeman.ConflictError, match="sdk-fork") as refusal:
            verb("sdk-source")
        assert transport.requests == before + 1, "the SDK repeated a refused request"
        assert refusal.value.response.json()["code"] == "invalid_state"
    with pytest.raises(hypeman.ConflictError) as taken:
        sdk.instances.fork("sdk-source", name="sdk-fork", extra_body={"share_memory": True})
    assert taken.value.response.json()["code"] == "name_conflict"

    with sdk.instances.logs("sdk-fork", follow=True) as lines:
        assert next(line for line in lines if line.startswith("pass")) == "pass 1"
    assert "restored" in list(sdk.instances.logs("sdk-fork"))
    stats = sdk.instances.stats("sdk-fork")
    assert (stats.instance_id, stats.allocated_memory_bytes) == (fork.id, 128 << 20)

    sdk.instances.delete("sdk-fork")
    assert sdk.instances.restore("sdk-source").state == "Running"
    assert sdk.instances.stop("sdk-source").state == "Stopped"
    assert sdk.instances.start("sdk-source").state in ("Initializing", "Running")
    sdk.instances.delete("sdk-source")
    with pytest.raises(hypeman.NotFoundError):
        sdk.instances.get(source.id)
    assert sdk.instances.list() == []


async def test_our_client_knows_every_verb(client: SupervisorClient) -> None:
    """What the dashboard needs beyond hypeman's: fan-out, lineage, the page map."""
    await client.health()
    assert set(await client.capabilities()) >= {"default_runtime", "features", "host", "images", "runtimes", "server"}
    source = await client.create(CreateRequest(name="source", image="pagewalker"))
    assert (await client.wait("source", State.RUNNING, PATIENCE)).timed_out is False
    assert (await client.standby("source")).state is State.STANDBY
    result = await client.fan_out("source", FanOutRequest(count=3, target_state=State.RUNNING))
    forks = [child.instance for child in result.children if child.instance]
    assert [fork.name for fork in forks] == ["source-1", "source-2", "source-3"]
    assert result.milliseconds > 0
    listed = {one.name: one for one in await client.instances()}
    assert (listed["source"].fork_count, listed["source"].mem_locked) == (3, True)
    assert [one.name for one in await client.instances(State.STANDBY)] == ["source"]
    lineage = await client.lineage(forks[0].id)
    assert (lineage.ancestors, lineage.tree.name) == ((source.id,), "source-1")
    below = (await client.lineage("source")).tree.children
    assert sorted(child.name for child in below) == ["source-1", "source-2", "source-3"]
    fold = await client.memory("source-1", 10)
    assert len(fold.cells) == 10
    assert sum(map(sum, fold.cells)) == fold.pages == (128 << 20) // fold.page_size
    assert (await client.stats("source-1")).instance_name == "source-1"
    assert isinstance(await client.logs("source", 5), list)
    for fork in forks:
        await client.delete(fork.id)
    assert (await client.instance("source")).mem_locked is False
    assert (await client.restore("source")).state is State.RUNNING
    assert (await client.stop("source")).state is State.STOPPED
    await client.start("source")


async def test_a_fork_without_a_body_takes_defaults(client: SupervisorClient, http: httpx.Client) -> None:
    """hypeman demands a name; here it may be left to the supervisor, and with it the whole body."""
    await client.create(CreateRequest(name="plain", image="pagewalker"))
    await client.wait("plain", State.RUNNING, PATIENCE)
    await client.stop("plain")
    answer = await asyncio.to_thread(http.post, "/instances/plain/fork")
    assert (answer.status_code, answer.json()["name"], answer.json()["state"]) == (201, "plain-1", "Stopped")
    second = await client.fork("plain", ForkRequest())
    assert second.name == "plain-2"


async def test_an_error_names_what_is_wrong(client: SupervisorClient) -> None:
    """Each in the supervisor's own words, with its code and status."""
    unknown = await refused(client.instance("nobody"))
    assert (unknown.status, unknown.code) == (404, "not_found")
    assert "nobody" in unknown.message
    image = await refused(client.create(CreateRequest(name="a", image="no-such-image")))
    assert (image.status, image.code) == (400, "invalid_image")
    size = await refused(client.create(CreateRequest(name="a", image="pagewalker", size="much")))
    assert (size.status, size.code) == (400, "invalid_size")
    await client.create(CreateRequest(name="taken", image="pagewalker"))
    conflict = await refused(client.create(CreateRequest(name="taken", image="pagewalker")))
    assert (conflict.status, conflict.code) == (409, "name_conflict")
    for error in (unknown, image, size, conflict):
        assert "\n" not in error.message


@pytest.mark.parametrize("reference", ["..", ".", "a/b", "a%2Fb", "a b", "ü", "a\nb", "?", "#", "x" * 4000])
async def test_a_strange_reference_is_not_found(client: SupervisorClient, reference: str) -> None:
    """It reaches the supervisor as it is, and no other route."""
    error = await refused(client.instance(reference))
    assert (error.status, error.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["name is missing", "image is missing"]),
        (b"{", ["not JSON"]),
        (b"\xff\xfe", ["not JSON"]),
        (b"[" * 100_000, ["not JSON"]),
        (b"[]", ["not a JSON object"]),
        (b'"text"', ["not a JSON object"]),
        (b'{"name":"Bad_Name","image":"pagewalker"}', ["name 'Bad_Name'", "lowercase letters, digits and dashes"]),
        (b'{"name":"-a","image":"pagewalker"}', ["name '-a'", "letter or digit at both ends"]),
        (b'{"name":"a\\u001b[2J","image":"pagewalker"}', ["name 'a\\x1b[2J'"]),
        (b'{"name":"%s","image":"pagewalker"}' % (b"a" * 64), ["name", "at most 63 characters"]),
        (b'{"name":"a","image":7}', ["image 7", "string"]),
        (b'{"name":"a","image":"pagewalker","vcpus":99}', ["vcpus 99", "less than or equal to 32"]),
        (b'{"name":"a","image":"pagewalker","hypervisor":"qemu"}', ["hypervisor 'qemu'", "firecracker", "embedded"]),
    ],
)
def test_a_bad_body_is_explained_in_one_line(http: httpx.Client, body: bytes, words: list[str]) -> None:
    """The line names the field and says what it may be, whatever the field holds."""
    answer = http.post("/instances", content=body, headers={"Content-Type": "application/json"})
    error = answer.json()
    assert (answer.status_code, error["code"]) == (400, "bad_request")
    assert all(word in error["message"] for word in words), error["message"]
    assert error["message"].isprintable()
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/instances?state=Asleep", 400, ["state 'Asleep'", "'Standby'"]),
        ("GET", "/instances/a/wait", 400, ["state is missing"]),
        ("GET", "/instances/a/wait?state=Running&timeout=soon", 400, ["timeout 'soon'", "500ms"]),
        ("GET", "/instances/a/wait?state=Running&timeout=-5s", 400, ["timeout '-5s'"]),
        ("GET", "/instances/a/logs?tail=-1", 400, ["tail '-1'"]),
        ("GET", "/instances/a/logs?source=kernel", 400, ["source 'kernel'", "'app'"]),
        ("GET", "/instances/a/memory?width=0", 400, ["width '0'"]),
        ("DELETE", "/instances/a?dryrun=true", 400, ["dryrun"]),
        ("DELETE", "/instances/a?dry_run=perhaps", 400, ["dry_run 'perhaps'"]),
        ("POST", "/instances/a/explode", 404, ["/instances/a/explode"]),
        ("GET", "/", 404, ["/instances"]),
        ("PUT", "/instances", 405, ["PUT", "GET"]),
        ("POST", "/events", 405, ["POST", "GET"]),
        ("PATCH", "/health", 405, ["PATCH"]),
    ],
)
def test_a_bad_request_is_refused(http: httpx.Client, method: str, path: str, status: int, words: list[str]) -> None:
    """Queries, routes and methods are refused as bodies are."""
    answer = http.request(method, path)
    error = answer.json()
    assert answer.status_code == status
    assert error["code"] == {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}[status]
    assert all(word in error["message"] for word in words), error["message"]


def test_what_is_not_known_is_passed_over_only_where_hypeman_may_know_it(http: httpx.Client) -> None:
    """A mistyped dry_run would make forks."""
    assert http.post("/instances", json={"name": "some", "image": "pagewalker", "env": {"a": "b"}}).status_code == 201
    for path, body in (("fan-out", {"count": 2, "dryrun": True}), ("checkpoint", {"named": "x"})):
        answer = http.post(f"/instances/some/{path}", json=body)
        assert answer.status_code == 400
        assert answer.json()["message"].endswith("is not known here; leave it out")
    assert [one["name"] for one in http.get("/instances").json()] == ["some"]
    http.delete("/instances/some")


def test_a_body_that_is_not_json_or_is_too_large_is_refused(http: httpx.Client) -> None:
    """10 MiB are refused before they are read, by length or in pieces."""
    large = b" " * (10 << 20)
    text = http.post("/instances", content=b"name: a", headers={"Content-Type": "application/yaml"})
    assert (text.status_code, text.json()["code"]) == (415, "unsupported_media_type")
    assert "application/yaml" in text.json()["message"]
    told = http.post("/instances", content=large)
    pieces = http.post("/instances", content=(large[start : start + 65536] for start in range(0, len(large), 65536)))
    for answer in (told, pieces):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def exchange(path: Path, data: bytes) -> bytes:
    """Send bytes as they are, say that there are no more, and return what comes back until the supervisor closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := peer.recv(65536):
                answer += chunk
        return answer


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x16\x03\x01garbage\r\n\r\n",
        b"\n" * 1000,
        b"GET",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /instances HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
        b"\xff" * (10 << 20),
        os.urandom(10 << 20),
    ],
)
def test_garbage_harms_nobody(served: Served, http: httpx.Client, garbage: bytes) -> None:
    """The peer gets an error or is dropped; others are answered, and nothing was created."""
    answer = exchange(served.socket, garbage)
    assert answer == b"" or answer.split()[1] == b"400"
    assert len(answer) < 4096, "what is quoted of garbage would wait for a peer that is still sending"
    assert http.get("/instances").json() == []
    assert "Traceback" not in served.log.read_text()


def test_idle_and_half_requests_hold_nobody_up(served: Served, http: httpx.Client) -> None:
    """A hundred peers that never finish their request are only waited for by themselves."""
    with contextlib.ExitStack() as peers:
        for _ in range(100):
            peer = peers.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            peer.connect(str(served.socket))
            peer.sendall(b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: http.get("/health").status_code, range(32)))
    assert answers == [200] * 32


async def test_a_wait_is_answered_before_its_client_stops_reading(client: SupervisorClient, http: httpx.Client) -> None:
    """hypeman's SDK says how long it reads; the wait takes less, however long it was asked to be."""
    await client.create(CreateRequest(name="waited", image="pagewalker"))
    answer = await asyncio.to_thread(
        http.get,
        "/instances/waited/wait",
        params={"state": "Standby", "timeout": "1h"},
        headers={"X-Stainless-Read-Timeout": "0.6"},
        timeout=PATIENCE,
    )
    assert answer.json()["timed_out"] is True
    assert 0.4 < answer.elapsed.total_seconds() < PATIENCE / 2
    result = await client.wait("waited", State.STANDBY, 0.2)
    assert result.timed_out


CHILD = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
def ask(method, path):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(sys.argv[1])
    peer.sendall(f"{method} {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
    head, _, body = b"".join(iter(lambda: peer.recv(65536), b"")).partition(b"\\r\\n\\r\\n")
    return int(head.split()[1]), json.loads(body)
def first_event():
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(sys.argv[1])
    peer.sendall(b"GET /events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    text = b""
    while b'"writable":' not in text:
        text += peer.recv(65536)
    return b'"writable":true' in text
print(json.dumps([os.getpid(), ask("GET", "/instances"), ask("POST", "/instances"), ask("DELETE", "/instances/a"),
    ask("PATCH", "/"), first_event()]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root, to become another user")
def test_another_user_may_look_but_not_change(served: Served) -> None:
    """Where the socket lets him in: the supervisor refuses, logs the refusal, and says so in the event stream."""
    opened = [
        path for path in (served.socket, *served.socket.parents) if path.is_relative_to("/tmp") and path != Path("/tmp")
    ]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in opened}
    try:
        for path, mode in modes.items():
            path.chmod(mode | (0o006 if path == served.socket else 0o005))
        child = subprocess.run(
            (sys.executable, "-I", "-c", CHILD, str(served.socket)),
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd="/",
        )
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    pid, listed, created, deleted, patched, writable = json.loads(child.stdout)
    assert listed == [200, []]
    for status, error in (created, deleted, patched):
        assert (status, error["code"]) == (403, "forbidden")
        assert error["message"] == "uid 65534 may look but not change; ask the supervisor's owner (uid 0)"
    assert writable is False
    log = served.log.read_text()
    assert f"POST /instances by uid {NOBODY}, pid {pid}: 403" in log
    assert f"DELETE /instances/a by uid {NOBODY}, pid {pid}: 403" in log


def test_every_change_is_logged_with_who_asked(served: Served, http: httpx.Client) -> None:
    """Also one that was refused for what it asked; looking is not logged."""
    http.post("/instances/logged-name/stop")
    http.get("/instances/looked-at")
    log = served.log.read_text()
    assert f"POST /instances/logged-name/stop by uid {os.geteuid()}, pid {os.getpid()}: 404" in log
    assert "looked-at" not in log


def test_only_owner_and_group_may_open_the_socket(served: Served) -> None:
    """aiohttp and asyncio would leave it to the umask."""
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o660


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
