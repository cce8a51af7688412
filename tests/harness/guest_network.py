"""A network namespace with a tap for one VM, and what is sent to its guest from there.

A namespace is the thread's: whoever is inside it makes sockets and starts processes that are, and both stay there.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import pytest

from supervisor.guests import pagewalker
from tests.harness.tap import make_tap
from tests.harness.unix_http import TIMEOUT

T = TypeVar("T")

TAP: Final = "tap0"
GATEWAY: Final = "172.16.0.1"
GUEST: Final = pagewalker.IP
GUEST_MAC: Final = "06:00:ac:10:00:09"
INTERFACE: Final = {"iface_id": "eth0", "guest_mac": GUEST_MAC, "host_dev_name": TAP}
ECHO_REPLY, ECHO_REQUEST = 0, 8

_CLONE_NEWNET: Final = 0x40000000
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922
_IFF_UP: Final = 1
_ECHO: Final = struct.Struct(">BBHHH")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def interfaces(**more: Any) -> dict[str, Any]:
    """Return the section of a config file by which a VM has the tap."""
    return {"network-interfaces": [INTERFACE | more]}


def checksum(packet: bytes) -> int:
    """Return the Internet checksum (RFC 1071), which is 0 where a right one is among the bytes."""
    words: tuple[int, ...] = struct.unpack(f">{(len(packet) + 1) // 2}H", packet + bytes(len(packet) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(payload: bytes, identifier: int = 1, sequence: int = 1) -> bytes:
    """Return the ICMP message."""
    message = _ECHO.pack(ECHO_REQUEST, 0, 0, identifier, sequence) + payload
    return message[:2] + struct.pack(">H", checksum(message)) + message[4:]


class GuestNetwork:
    """A network namespace, which lasts as long as this or a process in it does."""

    def __init__(self) -> None:
        with self._back_again():
            _checked(_LIBC.unshare(_CLONE_NEWNET))
            self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside it."""
        with self._back_again():
            _checked(_LIBC.setns(self._fd, _CLONE_NEWNET))
            yield

    @contextlib.contextmanager
    def within(self, context: contextlib.AbstractContextManager[T]) -> Iterator[T]:
        """Begin a context inside, and be outside in it."""
        with contextlib.ExitStack() as stack:
            with self.entered():
                begun = stack.enter_context(context)
            yield begun

    @staticmethod
    @contextlib.contextmanager
    def _back_again() -> Iterator[None]:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield
        finally:
            _checked(_LIBC.setns(before, _CLONE_NEWNET))
            os.close(before)

    def give_address(self, device: str, address: str, netmask: str = "255.255.255.252") -> None:
        """Give a device its address, and let it be up."""
        with self.opened(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for number, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, netmask)):
                sockaddr = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
                fcntl.ioctl(any_socket, number, struct.pack("16s16s8x", device.encode(), sockaddr))
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", device.encode(), _IFF_UP))

    def set_mtu(self, size: int) -> None:
        """Let the tap take packets of so many bytes."""
        with self.opened(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, _SIOCSIFMTU, struct.pack("16si20x", TAP.encode(), size))

    def opened(self, *kind: int) -> socket.socket:
        """Return a socket inside, whose waits are bounded."""
        with self.entered():
            made = socket.socket(*kind)
        made.settimeout(TIMEOUT)
        return made

    @contextlib.contextmanager
    def pinger(self, guest: str = GUEST) -> Iterator["Pinger"]:
        """What sends echo requests to the guest."""
        with self.opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.connect((guest, 0))
            yield Pinger(raw)

    def answers_ping(self, payload: bytes = b"are you there?", guest: str = GUEST) -> bool:
        """Whether the guest sends the payload back."""
        with self.pinger(guest) as pinger:
            return pinger.ping(payload) == payload

    def ask(self, question: bytes, guest: str = GUEST) -> bytes:
        """Return what the guest answers to a datagram."""
        with self.opened(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect((guest, pagewalker.QUESTIONS_PORT))
            udp.send(question)
            return udp.recv(65536)

    def generation(self, guest: str = GUEST) -> str:
        """Return the VM generation id that the guest says."""
        return self.ask(b"", guest).split()[1].decode()

    @contextlib.contextmanager
    def frames(self) -> Iterator[socket.socket]:
        """A socket that sends frames to the guest as they are, and is sent all that come."""
        with self.opened(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
            raw.bind((TAP, 3))
            yield raw

    def close(self) -> None:
        """Let it go."""
        os.close(self._fd)


class Pinger:
    """Sends echo requests by a raw socket, and takes nothing but right echo replies."""

    def __init__(self, raw: socket.socket) -> None:
        self.socket = raw
        self._sequence = 0

    def ping(self, payload: bytes) -> bytes:
        """Send one and return what the reply brings back."""
        self._sequence += 1
        self.socket.send(echo_request(payload, id(self) & 0xFFFF, self._sequence & 0xFFFF))
        return self.reply()

    def reply(self) -> bytes:
        """Return what the next reply brings back; it is to the last request that was sent here."""
        while True:
            message = self.socket.recv(65536)[20:]
            kind, code, _, identifier, sequence = _ECHO.unpack_from(message)
            if identifier != id(self) & 0xFFFF or kind == ECHO_REQUEST:
                continue
            assert (kind, code, sequence, checksum(message)) == (ECHO_REPLY, 0, self._sequence & 0xFFFF, 0)
            return message[_ECHO.size :]


@contextlib.contextmanager
def guest_network(gateway: str = GATEWAY) -> Iterator[GuestNetwork]:
    """Make one with a tap that nobody has open, whose host's end is the gateway; skips where this process may not."""
    try:
        network = GuestNetwork()
    except OSError as error:
        pytest.skip(f"a network namespace: {error.strerror}")
    try:
        try:
            with network.entered():
                make_tap(TAP)
        except OSError as error:
            pytest.skip(f"a tap device: {error.strerror}")
        network.give_address(TAP, gateway)
        yield network
    finally:
        network.close()


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
