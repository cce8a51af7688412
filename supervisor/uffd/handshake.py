"""The handshake: the one message that a VMM sends when it loads a snapshot, its memory's mappings and the userfaultfd.

Firecracker's side of it is `send_uffd_handshake` in src/vmm/src/persist.rs. It comes from a peer, and nothing of it
is believed before it was checked.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from supervisor.errors import PageServerError
from supervisor.system import unix_sockets
from supervisor.system.log_text import one_line
from supervisor.system.unix_sockets import ListensAlreadyError
from supervisor.uffd import kernel

MESSAGE_LIMIT_BYTES = 65536
PAGE_SIZES = (4096, 2 << 20)

_ADDRESS_LIMIT = 1 << 64
MOST_MAPPINGS = 64
"""Firecracker has one for each memory region: two with memory above the MMIO gap."""
USERFAULTFD_NAME = "anon_inode:[userfaultfd]"

_MOST_DESCRIPTORS = 16


class Mapping(NamedTuple):
    """One region of guest memory: the image's bytes [offset, offset + size) belong at `base` in the VMM."""

    base: int
    size: int
    offset: int


class Handshake(NamedTuple):
    """An accepted handshake; its receiver owns the userfaultfd."""

    uffd: int
    mappings: tuple[Mapping, ...]


def listen(path: Path) -> socket.socket:
    """A listening Unix socket at `path`, non-blocking, in the place of one that nobody listens at any more.

    PageServerError when the path cannot be one, or somebody does listen there.
    """
    try:
        return unix_sockets.listen(path)
    except ListensAlreadyError as error:
        raise PageServerError(f"another page server listens at {path}") from error
    except OSError as error:
        raise PageServerError(f"cannot listen at {path}: {error.strerror}") from error


def listener_of(descriptor: int) -> socket.socket:
    """The listening Unix socket behind a descriptor, which stays the caller's; PageServerError when it is none."""
    try:
        listener = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise PageServerError(f"the socket that came with the request cannot be used: {error.strerror}") from error
    if listener.family != socket.AF_UNIX or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.close()
        raise PageServerError("the descriptor that came with the request is no Unix socket that listens")
    listener.setblocking(False)
    return listener


class Reception:
    """Takes in the message of one peer, piece by piece."""

    def __init__(self, connection: socket.socket, memory_size: int, page_size: int) -> None:
        self.connection = connection
        self._memory_size = memory_size
        self._page_size = page_size
        self._message = b""
        self._descriptors: list[int] = []

    def receive(self) -> Handshake | None:
        """Take what has arrived; None when the message is not complete, PageServerError with the reason for refusal."""
        try:
            piece, descriptors, flags, _ = socket.recv_fds(
                self.connection, MESSAGE_LIMIT_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as error:
            raise PageServerError(f"the peer's message cannot be received: {error.strerror}") from error
        self._descriptors += descriptors
        self._message += piece
        if flags & socket.MSG_CTRUNC or len(self._descriptors) > 1:
            raise PageServerError("the peer sent more than one descriptor")
        if len(self._message) > MESSAGE_LIMIT_BYTES:
            raise PageServerError(f"the peer's message is longer than {MESSAGE_LIMIT_BYTES} bytes")
        begun = self._message.lstrip()
        if begun and not begun.startswith(b"["):
            raise PageServerError("the peer's message is not a JSON array")
        # The array's objects hold numbers only, so that its first bracket is its end.
        if b"]" not in self._message:
            if not piece:
                raise PageServerError("the peer closed before its message was complete")
            return None
        mappings = parse_mappings(self._message, self._memory_size, self._page_size)
        return Handshake(self._take_userfaultfd(mappings), mappings)

    def _take_userfaultfd(self, mappings: tuple[Mapping, ...]) -> int:
        if not self._descriptors:
            raise PageServerError("the peer sent its mappings without a userfaultfd")
        (uffd,) = self._descriptors
        kind = str(Path(f"/proc/self/fd/{uffd}").readlink())
        if kind != USERFAULTFD_NAME:
            raise PageServerError(f"the peer's descriptor is {one_line(kind)} and no userfaultfd")
        try:
            # Wakes nobody yet. It fails for a userfaultfd without UFFDIO_API and for a range outside of user space.
            for mapping in mappings:
                kernel.wake(uffd, mapping.base, mapping.size)
        except OSError as error:
            raise PageServerError(f"the peer's userfaultfd does not take its mappings: {error.strerror}") from error
        self._descriptors = []
        return uffd

    def close(self) -> None:
        """Close the descriptors that were not handed out, and the connection."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self.connection.close()


def parse_mappings(message: bytes, memory_size: int, page_size: int) -> tuple[Mapping, ...]:
    """The mappings of a message, in ascending offset, checked to cover an image of `memory_size` bytes exactly.

    PageServerError with the reason when they do not.
    """
    try:
        entries = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise PageServerError(f"the peer's message is not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise PageServerError("the peer's message is not a JSON array of mappings")
    if len(entries) > MOST_MAPPINGS:
        raise PageServerError(f"the peer's message has {len(entries)} mappings, and {MOST_MAPPINGS} are allowed")
    mappings = sorted((_parse_mapping(entry, page_size) for entry in entries), key=lambda mapping: mapping.offset)
    covered = 0
    for mapping in mappings:
        if mapping.offset != covered:
            what = "overlaps the one before it" if mapping.offset < covered else "leaves a gap before it"
            raise PageServerError(f"the peer's mapping at offset {mapping.offset:#x} {what}")
        covered += mapping.size
    if covered != memory_size:
        raise PageServerError(f"the peer's mappings have {covered} bytes and the memory image {memory_size}")
    end = 0
    for mapping in sorted(mappings):
        if mapping.base < end:
            raise PageServerError(f"the peer's mapping at address {mapping.base:#x} overlaps the one before it")
        end = mapping.base + mapping.size
    return tuple(mappings)


def _parse_mapping(entry: Any, page_size: int) -> Mapping:
    if not isinstance(entry, dict):
        raise PageServerError("an element of the peer's message is not a mapping")
    base, size, offset = (_whole_number(entry, name) for name in ("base_host_virt_addr", "size", "offset"))
    # page_size_kib is the older name of page_size, and holds bytes all the same.
    told_page_size = _whole_number(entry, "page_size" if "page_size" in entry else "page_size_kib")
    if told_page_size != page_size:
        raise PageServerError(f"a mapping's page_size is {told_page_size} and the template's {page_size}")
    if size == 0 or base % page_size or size % page_size or offset % page_size:
        raise PageServerError(f"a mapping of {size} bytes at {base:#x} is empty or not aligned to its page size")
    if base + size > _ADDRESS_LIMIT:
        raise PageServerError(f"a mapping of {size} bytes at {base:#x} overflows the address space")
    return Mapping(base, size, offset)


def _whole_number(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    if type(value) is not int or not 0 <= value < _ADDRESS_LIMIT:
        raise PageServerError(f"a mapping's {name} is missing or no whole number")
    return value
