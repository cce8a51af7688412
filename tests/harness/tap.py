"""A tap device that lasts as long as a test: what a VM's network interface needs on its host."""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
IFF_TAP_NO_PI = 0x1002
"""IFF_TAP | IFF_NO_PI of include/uapi/linux/if_tun.h."""


@contextlib.contextmanager
def tap(name: str) -> Iterator[str]:
    """Make one that nobody has open; skips where this process may not."""
    try:
        make_tap(name)
    except OSError as error:
        pytest.skip(f"a tap device: {error.strerror}")
    try:
        yield name
    finally:
        fd = _opened(name)
        fcntl.ioctl(fd, TUNSETPERSIST, 0)
        os.close(fd)


def make_tap(name: str) -> None:
    """Make a tap that stays until it is removed, or its network namespace is. Raises OSError."""
    fd = _opened(name)
    try:
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    finally:
        os.close(fd)


def _opened(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        # Firecracker asks for IFF_VNET_HDR too, which is each opener's own.
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd
