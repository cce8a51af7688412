"""What pagewalker does with frames that nobody should send: it drops them, and its memory is as it was."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hypothesis
import pytest
from hypothesis import strategies

from supervisor.guests.boot import boot_args, kernel_path
from supervisor.guests.pagewalker import KERNEL_BASE, PAGE_SIZE
from tests.harness.guest_frames import (
    ARP,
    BROADCAST,
    FROM,
    IPV4,
    REPLY,
    TO,
    UDP,
    arp,
    datagram,
    ethernet,
    ipv4,
    said_to,
    with_checksum,
)
from tests.harness.guest_network import GuestNetwork, Pinger, checksum, echo_request, guest_network, interfaces
from tests.harness.pagewalker_guest import HOT_MIB, SEED, SILENCE, booted, passes
from tests.harness.vmm_process import VmmProcess

MTU: Final = 9000
LARGEST: Final = PAGE_SIZE - 16 - 12 - 1
"""Bytes of the largest frame that is answered: with the virtio header before it, it is a byte shorter than a buffer."""
PING: Final = echo_request(b"odd", 7)
WALKS: Final = 2
UNTIMED: Final = [hypothesis.HealthCheck.too_slow]
"""How long examples take to make says nothing where others use the machine too."""
BUFFERS: Final = 32
"""FRAMES of the guest's constants.s."""


@dataclass(frozen=True)
class Guest:
    """A guest that is done and answers, and what is sent to it."""

    vmm: VmmProcess
    network: GuestNetwork
    frames: socket.socket
    pinger: Pinger

    def says_to(self, *sent: bytes) -> list[bytes]:
        """Return the frames that the guest sends for these."""
        return said_to(self.frames, *sent)


@pytest.fixture(scope="module")
def guest(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    arguments = boot_args(HOT_MIB, WALKS, SEED)
    with guest_network() as network:
        network.set_mtu(MTU)
        vmm_folder = tmp_path_factory.mktemp("frames") / "vmm"
        with (
            network.within(booted(firecracker, vmm_folder, arguments, **interfaces())) as vmm,
            network.frames() as frames,
            network.pinger() as pinger,
        ):
            assert vmm.console.take("done") == ["ready", *passes(1, WALKS), "done"]
            yield Guest(vmm, network, frames, pinger)


def changed(message: bytes, at: int, byte: int) -> bytes:
    return message[:at] + bytes((byte,)) + message[at + 1 :]


DROPPED: Final[dict[str, bytes]] = {
    "no packet": ethernet(b"", IPV4),
    "a byte short of ARP": arp()[:-1],
    "a byte short of ICMP": ipv4(echo_request(b""))[:-1],
    "IPv4 called IPv6": ethernet(ipv4(PING)[14:], 0x86DD),
    "a fragment": ipv4(PING, fragment=0x2000),
    "a later fragment": ipv4(PING, fragment=1),
    "options": ipv4(PING, version=0x46),
    "IPv6 as IPv4": ipv4(PING, version=0x65),
    "a wrong header checksum": ipv4(PING, wrong=1),
    "a wrong ICMP checksum": ipv4(changed(PING, 9, 0)),
    "longer than its frame": ipv4(PING, length=20 + len(PING) + 1),
    "the longest length": ipv4(PING, length=0xFFFF),
    "no room for a header": ipv4(PING, length=27),
    "half a header": ipv4(with_checksum(PING[:4]) + bytes(4), length=24),
    "no message": ipv4(PING, length=20),
    "no length": ipv4(PING, length=0),
    "another host": ipv4(PING, to="172.16.0.3"),
    "another MAC": ipv4(PING, to_mac=TO[:-1] + b"\x0a"),
    "a MAC of another kind": ipv4(PING, to_mac=b"\x02" + TO[1:]),
    "everybody": ipv4(PING, to_mac=BROADCAST),
    "ICMP code 1": ipv4(with_checksum(changed(PING, 1, 1))),
    "a timestamp request": ipv4(with_checksum(changed(PING, 0, 13))),
    "an echo reply that nothing asked for": ipv4(with_checksum(changed(PING, 0, 0))),
    "TCP": ipv4(datagram(b"who?"), 6),
    "another port": ipv4(datagram(b"who?", to=8), UDP),
    "from the port 7": ipv4(datagram(b"who?", port=7), UDP),
    "a wrong UDP checksum": ipv4(datagram(b"who?", wrong=1), UDP),
    "a wrong UDP length": ipv4(datagram(b"who?", length=11), UDP),
    "no UDP length": ipv4(datagram(b"who?", length=0), UDP),
    "ARP for another address": arp(to="172.16.0.1"),
    "ARP with another operation": arp(3),
    "an ARP reply that nothing asked for": arp(REPLY),
    "ARP with another hardware": arp(hardware=6),
    "ARP with other sizes": arp(sizes=0x0610),
    "as large as its buffer": ipv4(echo_request(bytes(LARGEST + 1 - 42))),
    "larger than its buffer": ipv4(echo_request(bytes(LARGEST + 2 - 42))),
    "much larger": ipv4(echo_request(bytes(MTU - 28))),
    "bytes that are not IP": ethernet(bytes(range(256)) * 5, IPV4),
    "bytes that are not ARP": ethernet(bytes(range(256)) * 5, ARP),
}


@pytest.mark.parametrize("frame", [pytest.param(frame, id=name) for name, frame in DROPPED.items()])
def test_it_is_dropped(guest: Guest, frame: bytes) -> None:
    assert guest.says_to(frame) == []


def test_a_reply_has_what_the_request_had_and_right_checksums(guest: Guest) -> None:
    for message in (PING, echo_request(bytes(LARGEST - 42)), echo_request(b"\xff" * 33, 0xFFFF, 0xFFFF)):
        for padding in (0, 18) if len(message) < 100 else (0,):
            (said,) = guest.says_to(ipv4(message, ttl=1) + b"\xaa" * padding)
            assert said[:14] == FROM + TO + struct.pack(">H", IPV4)
            assert said[26:34] == socket.inet_aton("172.16.0.2") + socket.inet_aton("172.16.0.1")
            assert (checksum(said[14:34]), said[22]) == (0, 64)
            assert said[34:] == with_checksum(changed(message, 0, 0))


def test_a_datagram_may_have_no_checksum_and_its_answer_has_one(guest: Guest) -> None:
    for question in (b"", b"who?", b"\xc3\xa9", b"x" * 1024):
        for wrong in (None, 0):
            (said,) = guest.says_to(ipv4(datagram(question, wrong=wrong), UDP))
            assert said.endswith(b" passes 2 asked " + question + b"\n")
            assert checksum(said[26:34] + struct.pack(">HH", UDP, len(said) - 34) + said[34:]) == 0


def test_an_answer_is_one_line_and_fits_in_a_frame(guest: Guest) -> None:
    (said,) = guest.says_to(ipv4(datagram(b"one\ntwo"), UDP))
    assert said.endswith(b" asked one\n")
    (said,) = guest.says_to(ipv4(datagram(b"x" * 4000), UDP))
    assert said.endswith(b" asked " + b"x" * 1024 + b"\n")
    assert len(said) < 1514


def test_whoever_asks_for_its_mac_is_told(guest: Guest) -> None:
    (said,) = guest.says_to(arp())
    guest_address, gateway = socket.inet_aton("172.16.0.2"), socket.inet_aton("172.16.0.1")
    assert said == FROM + TO + struct.pack(">HHHHH", ARP, 1, IPV4, 0x0604, REPLY) + TO + guest_address + FROM + gateway


def test_what_is_missing_is_not_taken_from_an_earlier_frame_in_its_buffer(guest: Guest) -> None:
    assert guest.says_to(*[arp(3)] * BUFFERS) == []
    assert guest.says_to(*[arp()[:-1]] * BUFFERS) == []
    assert len(guest.says_to(*[arp()] * BUFFERS)) == BUFFERS


RIGHT: Final = (arp(), arp(REPLY), ipv4(PING), ipv4(datagram(b"who?"), UDP), ipv4(with_checksum(changed(PING, 0, 0))))


def mended(frame: bytes) -> bytes:
    """Return the frame with the checksum of an IP header without options right again, whatever else is wrong."""
    if len(frame) < 34:
        return frame
    header = frame[14:24] + b"\0\0" + frame[26:34]
    return frame[:24] + struct.pack(">H", checksum(header)) + frame[26:]


@strategies.composite
def odd_frames(draw: strategies.DrawFn) -> bytes:
    """Return a right frame with some bytes of its headers wrong, or cut, or with more behind it."""
    frame = draw(strategies.sampled_from(RIGHT))
    for at, byte in draw(strategies.lists(strategies.tuples(strategies.integers(12, 60), strategies.integers(0, 255)))):
        frame = changed(frame, at, byte) if at < len(frame) else frame
    frame = frame[: draw(strategies.integers(14, len(frame)))] + bytes(draw(strategies.integers(0, 5000)))
    return mended(frame) if frame[12:14] == b"\x08\0" and draw(strategies.booleans()) else frame


ANY_FRAME: Final = strategies.one_of(strategies.binary(min_size=14, max_size=1514), odd_frames())


def test_garbage_changes_nothing_of_its_memory(guest: Guest) -> None:
    image_bytes = struct.unpack_from("<Q", kernel_path().read_bytes(), 64 + 40)[0]
    before = guest.vmm.snapshot("-before")[1].read_bytes()
    guest.vmm.resume()

    @hypothesis.settings(max_examples=150, suppress_health_check=UNTIMED)
    @hypothesis.given(strategies.lists(ANY_FRAME, max_size=20))
    def send(frames: list[bytes]) -> None:
        for frame in frames:
            guest.frames.send(frame)
        assert guest.pinger.ping(b"still there?") == b"still there?"

    send()
    after = guest.vmm.snapshot("-after")[1].read_bytes()
    guest.vmm.resume()
    # Behind its bytes it has its stack, its rings and its buffers.
    its_own = range(KERNEL_BASE + 2 * PAGE_SIZE, KERNEL_BASE + image_bytes)
    pages = (at for at in range(0, len(before), PAGE_SIZE) if before[at : at + PAGE_SIZE] != after[at : at + PAGE_SIZE])
    assert [hex(at) for at in pages if at not in its_own] == []
    assert guest.vmm.console.are_over(SILENCE)


def test_it_verifies_its_walk_among_garbage(firecracker: Path, tmp_path: Path) -> None:
    arguments = boot_args(HOT_MIB, 0, SEED)
    with (
        guest_network() as network,
        network.within(booted(firecracker, tmp_path / "vmm", arguments, **interfaces())) as vmm,
        network.frames() as frames,
        network.pinger() as pinger,
    ):
        vmm.console.take("ready")

        @hypothesis.settings(max_examples=30, suppress_health_check=UNTIMED)
        @hypothesis.given(strategies.lists(strategies.binary(min_size=14, max_size=1514), max_size=20))
        def send(garbage: list[bytes]) -> None:
            for frame in garbage:
                frames.send(frame)
            assert pinger.ping(b"still there?") == b"still there?"

        send()
        seen = len(vmm.console.all())
        assert vmm.console.more_than(seen + 2, timeout=10)
        assert vmm.console.all() == ["ready", *passes(1, len(vmm.console.all()) - 1)]
