"""Ethernet frames for a guest, right ones and such as are not."""

import socket
import struct
from typing import Final

from supervisor.guests.pagewalker import QUESTIONS_PORT
from tests.harness.guest_network import GATEWAY, GUEST, GUEST_MAC, checksum, echo_request

TO: Final = bytes.fromhex(GUEST_MAC.replace(":", ""))
FROM: Final = bytes.fromhex("020000000001")
BROADCAST: Final = b"\xff" * 6
ARP, IPV4 = 0x0806, 0x0800
REQUEST, REPLY = 1, 2
ICMP, UDP = 1, 17
FROM_PORT: Final = 40_000


def ethernet(packet: bytes, ethertype: int, to: bytes = TO) -> bytes:
    """Return a frame from FROM."""
    return to + FROM + ethertype.to_bytes(2, "big") + packet


def arp(
    operation: int = REQUEST, to: str = GUEST, hardware: int = 1, sizes: int = 0x0604, sender: str = GATEWAY
) -> bytes:
    """Return the frame in which the gateway asks for an address, or tells its own."""
    asks = struct.pack(">HHHH", hardware, IPV4, sizes, operation)
    return ethernet(asks + FROM + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(to), ARP, BROADCAST)


def ipv4(
    message: bytes,
    protocol: int = ICMP,
    *,
    version: int = 0x45,
    length: int | None = None,
    fragment: int = 0,
    ttl: int = 64,
    wrong: int = 0,
    to: str = GUEST,
    to_mac: bytes = TO,
    sender: str = GATEWAY,
) -> bytes:
    """Return the frame with a packet from the gateway; `wrong` is by how much its checksum is."""
    options = bytes((version & 15) * 4 - 20)
    total = 20 + len(options) + len(message) if length is None else length
    addresses = socket.inet_aton(sender) + socket.inet_aton(to)
    header = struct.pack(">BBHHHBBH", version, 0, total, 1, fragment, ttl, protocol, 0) + addresses + options
    right = checksum(header)
    return ethernet(header[:10] + struct.pack(">H", right ^ wrong) + header[12:] + message, IPV4, to_mac)


def datagram(
    text: bytes, *, to: int = QUESTIONS_PORT, port: int = FROM_PORT, length: int | None = None, wrong: int | None = 0
) -> bytes:
    """Return the datagram; `wrong` is by how much its checksum is, None for one without."""
    size = 8 + len(text) if length is None else length
    header = struct.pack(">HHH", port, to, size)
    pseudo = socket.inet_aton(GATEWAY) + socket.inet_aton(GUEST) + struct.pack(">HH", UDP, size)
    right = checksum(pseudo + header + b"\0\0" + text)
    return header + struct.pack(">H", 0 if wrong is None else right ^ wrong) + text


def with_checksum(message: bytes) -> bytes:
    """Return an ICMP message with its checksum right."""
    cleared = message[:2] + b"\0\0" + message[4:]
    return message[:2] + struct.pack(">H", checksum(cleared)) + message[4:]


def said_to(frames: socket.socket, *sent: bytes) -> list[bytes]:
    """Send these and return the frames that the guest sends for them; it answers in the order in which they come."""
    for frame in (*sent, ipv4(echo_request(b"last", 8))):
        frames.send(frame)
    said: list[bytes] = []
    while True:
        frame, address = frames.recvfrom(65536)
        if address[2] == socket.PACKET_OUTGOING or frame[6:12] != TO:
            continue
        if frame[42:] == b"last":
            return said
        said.append(frame)
