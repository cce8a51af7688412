"""Guest memory: where its pages come from, and access to them that a missing page cannot turn against the VMM.

A page that a page server has not sent yet stops the thread that touches it. So every access is a call into libc, which
ctypes makes without the GIL: the thread waits, the others go on. And every access is made in user mode, because under
UFFD_USER_MODE_ONLY a system call that meets a missing page fails with EFAULT (userfaultfd(2)).
"""

import ctypes
import json
import mmap
import os
import socket
from typing import Final, Self

from supervisor.embedded.dirty_log import WRITTEN, DirtyLog
from supervisor.guests.pagewalker import GAP_BASE, MIB, PAGE_SIZE, UPPER_BASE, mem_file_offset
from supervisor.uffd import kernel

MAP_FIXED: Final = 0x10
MAP_NORESERVE: Final = 0x4000
"""asm-generic/mman-common.h; the mmap module names the second from Python 3.13 on."""

Content = bytes | ctypes.Array[ctypes.c_char]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.memmove.restype = ctypes.c_void_p
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p


class GuestMemory:
    """All memory of a VM: `size` bytes in one piece, which is in two for the guest where it is more than GAP_BASE.

    Addresses are guest-physical, lengths are bytes.
    """

    def __init__(self, mapping: mmap.mmap, mem_file: os.stat_result | None = None) -> None:
        self.size = len(mapping)
        self._mapping = mapping
        self._mem_file = mem_file
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self._page_server: tuple[int, socket.socket] | None = None
        self.user_mode_only = False
        self.dirty_log: DirtyLog | None = None
        """Told of what changes from when it is set on; Diff snapshots need it."""

    @classmethod
    def anonymous(cls, size: int) -> Self:
        """Zeroed memory; raises OSError."""
        return cls(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE))

    @classmethod
    def from_file(cls, path: str, size: int) -> Self:
        """A private mapping of a mem-file of exactly `size` bytes; raises OSError, or ValueError for another size."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if status.st_size != size:
                raise ValueError(f"{path} has {status.st_size} bytes, and the snapshot's memory has {size}")
            return cls(mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE | MAP_NORESERVE), status)
        finally:
            os.close(fd)

    @classmethod
    def from_page_server(cls, path: str, size: int) -> Self:
        """Memory whose pages the page server that listens at `path` sends when they are touched; raises OSError.

        Firecracker's handshake: one message, a JSON array of mappings (the sizes of a page in it are both in bytes)
        with the userfaultfd. Both ends stay open as long as the VM, for a page server that takes over.
        """
        memory = cls.anonymous(size)
        uffd = memory._open_userfaultfd()
        kernel.api(uffd, kernel.UFFD_FEATURE_EVENT_REMOVE)
        kernel.register(uffd, memory._base, size)
        mappings = [
            {
                "base_host_virt_addr": memory._base + start,
                "size": end - start,
                "offset": start,
                "page_size": PAGE_SIZE,
                "page_size_kib": PAGE_SIZE,
            }
            for start, end in ((0, min(size, GAP_BASE)), (GAP_BASE, size))
            if start < end
        ]
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        socket.send_fds(peer, [json.dumps(mappings).encode()], [uffd])
        memory._page_server = (uffd, peer)
        return memory

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of the bytes at `address`."""
        buffer = ctypes.create_string_buffer(length)
        _libc.memmove(buffer, self._pointer(address, length), length)
        return buffer.raw

    def write(self, address: int, data: Content) -> None:
        """Put `data` at `address`."""
        _libc.memmove(self._pointer(address, len(data)), data, len(data))
        if self.dirty_log is not None:
            self.dirty_log.write(mem_file_offset(address), len(data))

    def discard(self, address: int, length: int) -> None:
        """Give pages back to the host, as Firecracker's balloon does; they are zero from then on. Raises OSError.

        With a page server this returns when that has read the event of it (UFFD_FEATURE_EVENT_REMOVE), and not before.
        """
        pointer = self._pointer(address, length)
        if self._mem_file is None:
            failed = _libc.madvise(pointer, length, mmap.MADV_DONTNEED) != 0
        else:
            # After MADV_DONTNEED a private mapping of a file would show the file's pages again (madvise(2)).
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
            failed = _libc.mmap(pointer, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != pointer
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if self.dirty_log is not None:
            self.dirty_log.discard(mem_file_offset(address), length)

    def equals(self, address: int, data: Content) -> bool:
        """Whether `data` is what is at `address`; pages are touched upwards, none behind the first difference."""
        return bool(_libc.memcmp(self._pointer(address, len(data)), data, len(data)) == 0)

    def is_file(self, status: os.stat_result) -> bool:
        """Whether this memory is a mapping of that file."""
        return self._mem_file is not None and os.path.samestat(self._mem_file, status)

    def dump(self, fd: int) -> None:
        """Write all memory into an empty file, zero pages as holes; raises OSError."""
        os.ftruncate(fd, self.size)
        bounce = bytearray(MIB)
        pointer = ctypes.addressof(ctypes.c_char.from_buffer(bounce))
        view = memoryview(bounce)
        for offset in range(0, self.size, MIB):
            _libc.memmove(pointer, self._base + offset, MIB)
            for start, end in _nonzero_runs(pointer):
                _write_all(fd, view[start:end], offset + start)

    def dump_dirty(self, fd: int, dirty_log: DirtyLog) -> None:
        """Write the pages of the dirty log into a file, each at its offset, and no others; raises OSError.

        No page is faulted in by it: what was written is there, and what was given back is not looked at.
        """
        os.ftruncate(fd, self.size)
        zeros = memoryview(bytes(MIB))
        with memoryview(self._mapping) as content:
            for start, end, state in dirty_log.runs():
                if state == WRITTEN:
                    _write_all(fd, content[start:end], start)
                    continue
                for offset in range(start, end, MIB):
                    _write_all(fd, zeros[: end - offset], offset)

    def _open_userfaultfd(self) -> int:
        """Return a userfaultfd for all faults, or, where the process may not have that one, for those of user mode."""
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return kernel.userfaultfd(flags)
        except PermissionError:
            self.user_mode_only = True
            return kernel.userfaultfd(flags | kernel.UFFD_USER_MODE_ONLY)

    def _pointer(self, address: int, length: int) -> int:
        offset, in_gap = mem_file_offset(address), address + length > GAP_BASE and address < UPPER_BASE
        if in_gap or not 0 <= offset <= self.size - length:
            raise IndexError(f"{length} bytes at {address:#x} are not within {self.size} bytes of guest memory")
        return self._base + offset


def _is_zero(pointer: int, length: int) -> bool:
    """Whether the first byte is zero and each byte is as the one before it."""
    return ctypes.c_char.from_address(pointer).value == b"\0" and _libc.memcmp(pointer, pointer + 1, length - 1) == 0


def _nonzero_runs(pointer: int) -> list[tuple[int, int]]:
    """Return (start, end) offsets of the runs of pages with content in the MiB at `pointer`."""
    runs: list[tuple[int, int]] = []
    if _is_zero(pointer, MIB):
        return runs
    for start in range(0, MIB, PAGE_SIZE):
        if _is_zero(pointer + start, PAGE_SIZE):
            continue
        end = start + PAGE_SIZE
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
