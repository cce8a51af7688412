"""Bodies of files that are not as they should be, or that meet the supervisor's end: each is told for what it is."""

import asyncio
from collections.abc import Callable, Coroutine

import httpx
import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from supervisor.api.closing import Closing
from supervisor.api.requests import Nothing, parse
from supervisor.api.uploads import one_file
from supervisor.errors import StoppingError, SupervisorError
from tests.harness.waiting import until

REQUEST = b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"name": "x"}\r\n'


def part(headers: bytes) -> bytes:
    return REQUEST + b"--b\r\n" + headers + b"\r\n\r\nkernel\r\n--b--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        part(b"\r\n".join(b"H%d: x" % number for number in range(200))),
        part(b"Long: " + b"x" * 20_000),
        part(b"no header"),
        part(b"Na me: x"),
        part(b"Name: a\0b"),
        part(b"Content-Length: -5"),
        part(b"Content-Type: multipart/mixed"),
        part(b"Content-Type: multipart/mixed; boundary=c"),
        part(b"Content-Disposition: form-data; name=\xff\xfe"),
        part(b"Content-Transfer-Encoding: base64"),
        REQUEST[:60],
        REQUEST,
        b"--b\r\n" + b"H: x\r\n" * 200 + b"\r\n\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\n' + b"x" * 99 + b"\r\n--b--\r\n",
        b"x" * 300_000,
        b"",
    ],
)
@pytest.mark.parametrize("boundary", ["b", "b" * 60], ids=["short", "long"])
def test_a_multipart_body_that_is_none_is_the_clients_fault(http: httpx.Client, body: bytes, boundary: str) -> None:
    body = body.replace(b"--b", b"--" + boundary.encode())
    answer = http.post("/images", content=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), answer.text
    assert answer.json()["message"].isprintable()


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 99])
def test_a_boundary_that_is_none_is_the_clients_fault(http: httpx.Client, content_type: str) -> None:
    answer = http.post("/images", content=REQUEST, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), answer.text


Reads = Callable[[StreamReader, Closing], Coroutine[None, None, None]]


async def of_a_file(payload: StreamReader, closing: Closing) -> None:
    request = make_mocked_request("PUT", "/images/x", payload=payload)
    async for file in one_file(request, closing):
        async for _ in file.data:
            pass


async def of_a_request(payload: StreamReader, closing: Closing) -> None:
    request = make_mocked_request("POST", "/instances", payload=payload)
    await parse(request, Nothing, Nothing, closing)


@pytest.mark.parametrize("read", [of_a_file, of_a_request])
async def test_a_body_that_meets_the_end_of_the_supervisor_is_told_of_that(read: Reads) -> None:
    loop, closing = asyncio.get_running_loop(), Closing()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    payload = StreamReader(protocol, 1 << 16, loop=loop)
    payload.feed_data(b"flows")
    reading = asyncio.create_task(read(payload, closing))
    await until(lambda: bool(closing._bounds) or reading.done())
    closing.close()
    with pytest.raises(SupervisorError) as raised:
        await reading
    assert isinstance(raised.value, StoppingError)
