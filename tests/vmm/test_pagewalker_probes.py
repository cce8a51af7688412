"""How pagewalker probes an address when it is asked to: what it sends, what it takes for an answer."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from supervisor.guests.boot import boot_args
from tests.harness.guest_frames import (
    ARP,
    BROADCAST,
    FROM,
    IPV4,
    REPLY,
    REQUEST,
    TO,
    UDP,
    arp,
    datagram,
    ipv4,
    said_to,
    with_checksum,
)
from tests.harness.guest_network import GATEWAY, GUEST, checksum, guest_network, interfaces
from tests.harness.pagewalker_guest import HOT_MIB, SILENCE, booted
from tests.harness.vmm_process import VmmProcess

TARGET: Final = "10.77.0.1"


class Guest(NamedTuple):
    """A guest that is done, and a socket for its frames; nobody else answers it."""

    vmm: VmmProcess
    frames: socket.socket


@pytest.fixture
def guest(firecracker: Path, tmp_path: Path) -> Iterator[Guest]:
    with (
        guest_network(gateway="172.16.0.5") as network,
        network.within(booted(firecracker, tmp_path / "vmm", boot_args(HOT_MIB, 1), **interfaces())) as vmm,
        network.frames() as frames,
    ):
        vmm.console.take("done")
        yield Guest(vmm, frames)


def asked(question: bytes) -> bytes:
    return ipv4(datagram(question), UDP)


def replied(request: bytes, sender: str = TARGET, identifier: bytes = b"") -> bytes:
    """Return the frame that answers an echo request in a frame, or another one of that kind."""
    message = request[34:]
    return ipv4(with_checksum(b"\0\0" + message[2:4] + (identifier or message[4:8]) + message[8:]), sender=sender)


def test_it_asks_for_the_gateway_each_time_and_sends_an_echo_request_by_it(guest: Guest) -> None:
    wanted = (
        BROADCAST + TO + struct.pack(">HHHHH", ARP, 1, IPV4, 0x0604, REQUEST)
        + TO + socket.inet_aton(GUEST) + bytes(6) + socket.inet_aton(GATEWAY)
    )  # fmt: skip
    numbers = set()
    for end in (b"", b"\n", b"\0", b"\r\n more"):
        answer, request = said_to(guest.frames, asked(f"probe {TARGET}".encode() + end))
        assert answer.endswith(f" passes 1 asked probe {TARGET}\n".encode())
        assert request == wanted
        assert said_to(guest.frames, arp(REPLY, sender="172.16.0.3")) == []
        (sent,) = said_to(guest.frames, arp(REPLY))
        assert sent[:14] == FROM + TO + struct.pack(">H", IPV4)
        assert sent[22:24] == b"\x40\x01"
        assert sent[26:34] == socket.inet_aton(GUEST) + socket.inet_aton(TARGET)
        assert (sent[34:36], len(sent)) == (b"\x08\0", 42)
        assert checksum(sent[14:34]) == checksum(sent[34:]) == 0
        numbers.add(sent[38:42])
    assert len(numbers) == 4


def test_only_the_reply_to_its_request_is_an_answer_and_only_once(guest: Guest) -> None:
    said_to(guest.frames, asked(f"probe {TARGET}".encode()))
    (sent,) = said_to(guest.frames, arp(REPLY))
    other = bytes((sent[38] ^ 1,)) + sent[39:42]
    assert said_to(guest.frames, replied(sent, sender="10.77.0.2"), replied(sent, identifier=other)) == []
    assert guest.vmm.console.are_over(SILENCE)
    assert said_to(guest.frames, replied(sent), replied(sent), arp(REPLY)) == []
    assert guest.vmm.console.next() == f"probe {TARGET} answered"
    assert guest.vmm.console.are_over(SILENCE)


def test_a_later_probe_takes_an_earlier_ones_place(guest: Guest) -> None:
    said_to(guest.frames, asked(f"probe {TARGET}".encode()))
    (first,) = said_to(guest.frames, arp(REPLY))
    said_to(guest.frames, asked(b"probe 10.77.0.255"))
    (second,) = said_to(guest.frames, arp(REPLY))
    assert said_to(guest.frames, replied(first), replied(second, sender="10.77.0.255")) == []
    assert guest.vmm.console.next() == "probe 10.77.0.255 answered"
    assert guest.vmm.console.are_over(SILENCE)


@pytest.mark.parametrize(
    "question",
    [
        "probe", "probe ", "probe 10", "probe 10.77.0", "probe 10.77.0.", "probe 10.77.0.1.", "probe 10.77.0.1 x",
        "probe 10.77.0.256", "probe 10.77.:.1", "probe  10.77.0.1", "probes10.77.0.1", "Probe 10.77.0.1", "10.77.0.1",
    ],
)  # fmt: skip
def test_any_other_question_is_just_answered(guest: Guest, question: str) -> None:
    (answer,) = said_to(guest.frames, asked(question.encode()))
    assert answer.endswith(f" asked {question}\n".encode())
    assert said_to(guest.frames, arp(REPLY)) == []
