"""A mount that never answers, as that of a network file system whose server is gone: FUSE without a server."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
MNT_DETACH = 2


@contextlib.contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """Have whoever looks into a directory wait in the kernel until the context ends; skip where that cannot be had."""
    try:
        # Closing it ends the connection, and all that wait for an answer fail.
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"/dev/fuse: {error.strerror}")
    try:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
        if _libc.mount(b"hanging", os.fsencode(directory), b"fuse", 0, options):
            pytest.skip(f"a mount: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            _libc.umount2(os.fsencode(directory), MNT_DETACH)
    finally:
        os.close(fd)
