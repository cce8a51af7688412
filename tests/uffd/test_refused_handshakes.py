"""Whom a page server does not serve: strangers, garbage for a handshake, and silence."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.errors import PageServerError
from supervisor.system.unix_sockets import connect
from supervisor.uffd.handle import Policy, Refused
from tests.harness.page_server_template import MIB, PAGE, PAGES, SIZE, Template
from tests.harness.unix_http import connected

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_only_the_forks_own_vmm_may_connect(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    good = await template.fork(server, "good")
    good.tell("storm", 2, 1)
    fork = await template.fork(server, "one", load=False)
    with connected(template.directory / "one.uffd") as stranger:
        refused = await template.event(lambda event: isinstance(event, Refused))
        assert refused == Refused("one", f"pid {os.getpid()} connected, and only pid {fork.pid} may")
        assert await asyncio.to_thread(stranger.recv, 1) == b""
    for _ in range(50):
        with connected(template.directory / "one.uffd") as again:
            assert await asyncio.to_thread(again.recv, 1) == b""
    assert (template.directory / "log").read_text().count("Refused") == 1
    await good.answer("0")
    await fork.do("load", expect="sent")
    await server.served("one")
    await fork.do("walk", 0, PAGES)


GARBAGE: dict[str, tuple[Callable[[list[dict[str, Any]]], str], tuple[str, ...], str]] = {
    "no JSON": (lambda _: "GET / HTTP/1.1\r\n", ("uffd",), "not a JSON array"),
    "cut JSON": (lambda _: "[{]", ("uffd",), "not JSON"),
    "an object": (lambda _: "{}", ("uffd",), "not a JSON array"),
    "nothing in it": (lambda _: "[]", ("uffd",), "not a JSON array of mappings"),
    "nesting": (lambda _: "[" * 30000 + "]" * 30000, ("uffd",), "not JSON"),
    "too long": (lambda _: "[" + " " * 70000, ("uffd",), "longer than 65536 bytes"),
    "10 MiB": (lambda mappings: json.dumps(mappings * (10 * MIB // 80)), ("uffd",), "longer than 65536 bytes"),
    "no descriptor": (json.dumps, (), "without a userfaultfd"),
    "two descriptors": (json.dumps, ("uffd", "uffd"), "more than one descriptor"),
    "many descriptors": (json.dumps, ("/dev/null",) * 40, "more than one descriptor"),
    "no userfaultfd": (json.dumps, ("/dev/null",), "/dev/null and no userfaultfd"),
    "a userfaultfd without features": (json.dumps, ("bare uffd",), "does not take its mappings"),
    "overlap of addresses": (
        lambda mappings: json.dumps(
            [{**mappings[0], "size": SIZE // 2}, {**mappings[0], "size": SIZE // 2, "offset": SIZE // 2}]
        ),
        ("uffd",),
        "overlaps the one before it",
    ),
    "overlap": (lambda mappings: json.dumps(mappings * 2), ("uffd",), "overlaps"),
    "half of it": (lambda mappings: json.dumps([{**mappings[0], "size": SIZE // 2}]), ("uffd",), f"image {SIZE}"),
    "twice of it": (lambda mappings: json.dumps([{**mappings[0], "size": 2 * SIZE}]), ("uffd",), f"image {SIZE}"),
    "another page size": (
        lambda mappings: json.dumps([{**mappings[0], "page_size": 2 << 20}]),
        ("uffd",),
        "page_size is 2097152 and the template's 4096",
    ),
    "overflow": (
        lambda mappings: json.dumps([{**mappings[0], "base_host_virt_addr": (1 << 64) - PAGE}]),
        ("uffd",),
        "overflows the address space",
    ),
    "kernel's range": (
        lambda mappings: json.dumps([{**mappings[0], "base_host_virt_addr": (1 << 64) - SIZE}]),
        ("uffd",),
        "does not take its mappings",
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_for_a_handshake_is_refused_and_nobody_else_notices(template: Template, kind: str) -> None:
    make, descriptors, reason = GARBAGE[kind]
    server = await template.serve(Policy(fault_around_pages=1))
    good = await template.fork(server, "good")
    bad = await template.fork(server, "bad", load=False)
    mappings = [
        {"base_host_virt_addr": 1 << 30, "size": SIZE, "offset": 0, "page_size": PAGE},
    ]
    good.tell("storm", 2, 1)
    bad.tell("send", make(mappings), *descriptors)
    with pytest.raises(
        PageServerError, match=r"fork bad is not served: the handshake of its VMM was refused"
    ) as raised:
        await server.served("bad")
    assert reason in raised.value.message
    assert isinstance(await template.event(lambda event: isinstance(event, Refused)), Refused)
    await good.answer("0")
    assert (await server.status()).forks == ("good",)
    assert connect(template.directory / "bad.uffd") == errno.ECONNREFUSED


async def test_silence_and_a_hang_up_are_no_handshake(template: Template) -> None:
    server = await template.serve(Policy(handshake_seconds=0.5, fault_around_pages=1))
    good = await template.fork(server, "good")
    good.tell("storm", 2, 1)
    await template.fork(server, "silent", load=False)
    hesitant = await template.fork(server, "hesitant", load=False)
    hesitant.tell("send", '[{"size":', "uffd")
    closed = await template.fork(server, "closed", load=False)
    await closed.do("send", "[", "uffd", expect="sent")
    await closed.do("hang_up", expect="closed")
    for fork_id, reason in (("closed", "closed before"), ("silent", "within 0.5 s"), ("hesitant", "within 0.5 s")):
        with pytest.raises(PageServerError, match=reason):
            await server.served(fork_id)
    await good.answer("0")
    assert (await server.status()).forks == ("good",)
