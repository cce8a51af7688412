"""The kernel's userfaultfd interface: the only file that knows its numbers and layouts.

They are those of linux/userfaultfd.h; userfaultfd(2) and the UFFDIO_*(2const) pages say what the calls mean.

Every function raises OSError with the kernel's errno. `copy`, `zeropage` and `wake` keep their argument in buffers of
this module, so that a call allocates nothing: one thread at a time may use them.
"""

import ctypes
import errno
import fcntl
import io
import mmap
import os
import select
from collections.abc import Callable, Iterator
from functools import partial
from struct import Struct

O_CLOEXEC = os.O_CLOEXEC
O_NONBLOCK = os.O_NONBLOCK
UFFD_USER_MODE_ONLY = 1

UFFD_API = 0xAA
UFFD_FEATURE_PAGEFAULT_FLAG_WP = 1 << 0
UFFD_FEATURE_EVENT_FORK = 1 << 1
UFFD_FEATURE_EVENT_REMAP = 1 << 2
UFFD_FEATURE_EVENT_REMOVE = 1 << 3
UFFD_FEATURE_MISSING_HUGETLBFS = 1 << 4
UFFD_FEATURE_MISSING_SHMEM = 1 << 5
UFFD_FEATURE_EVENT_UNMAP = 1 << 6
UFFD_FEATURE_THREAD_ID = 1 << 8

UFFD_EVENT_PAGEFAULT = 0x12
UFFD_EVENT_FORK = 0x13
UFFD_EVENT_REMAP = 0x14
UFFD_EVENT_REMOVE = 0x15
UFFD_EVENT_UNMAP = 0x16

MESSAGE_BYTES = 32

_NO_WAIT = os.RWF_NOWAIT

_IOC_WRITE, _IOC_READ = 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    """An ioctl request of userfaultfd's type 0xAA, in the layout of asm-generic/ioctl.h."""
    return direction << 30 | size << 16 | UFFD_API << 8 | number


_API = Struct("=QQQ")  # api, features, ioctls
_REGISTER = Struct("=QQQQ")  # start, len, mode, ioctls
_RANGE = Struct("=QQ")  # start, len
_COPY = Struct("=QQQQq")  # dst, src, len, mode, copy
_ZEROPAGE = Struct("=QQQq")  # start, len, mode, zeropage
_MESSAGE = Struct("=B7xQQQ")  # event, then a union of up to three words

_UFFDIO_API = _ioc(_IOC_READ | _IOC_WRITE, 0x3F, _API.size)
_UFFDIO_REGISTER = _ioc(_IOC_READ | _IOC_WRITE, 0x00, _REGISTER.size)
_UFFDIO_UNREGISTER = _ioc(_IOC_READ, 0x01, _RANGE.size)
_UFFDIO_WAKE = _ioc(_IOC_READ, 0x02, _RANGE.size)
_UFFDIO_COPY = _ioc(_IOC_READ | _IOC_WRITE, 0x03, _COPY.size)
_UFFDIO_ZEROPAGE = _ioc(_IOC_READ | _IOC_WRITE, 0x04, _ZEROPAGE.size)
_UFFDIO_REGISTER_MODE_MISSING = 1

_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}.get(os.uname().machine, 323)
_SYS_PIDFD_GETFD = 438
_MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

_ioctl = fcntl.ioctl
_copy_argument = bytearray(_COPY.size)
_copy_words = memoryview(_copy_argument).cast("q")
_zeropage_argument = bytearray(_ZEROPAGE.size)
_range_argument = bytearray(_RANGE.size)


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def userfaultfd(flags: int = O_CLOEXEC | O_NONBLOCK) -> int:
    """A new userfaultfd; PermissionError when only UFFD_USER_MODE_ONLY is allowed (vm.unprivileged_userfaultfd)."""
    fd = int(_libc.syscall(ctypes.c_long(_SYS_USERFAULTFD), ctypes.c_int(flags)))
    if fd < 0:
        raise _failed()
    return fd


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A duplicate of the descriptor `number` of the process behind `pidfd`; needs ptrace access to it."""
    arguments = ctypes.c_int(pidfd), ctypes.c_int(number), ctypes.c_uint(0)
    fd = int(_libc.syscall(ctypes.c_long(_SYS_PIDFD_GETFD), *arguments))
    if fd < 0:
        raise _failed()
    return fd


def api(fd: int, features: int) -> int:
    """Do the UFFDIO_API handshake, once per userfaultfd (EINVAL the second time); returns the kernel's features."""
    argument = bytearray(_API.pack(UFFD_API, features, 0))
    _ioctl(fd, _UFFDIO_API, argument)
    return int(_API.unpack(argument)[1])


def register(fd: int, start: int, length: int) -> None:
    """Have missing pages of the range reported; start and length are bytes, page-aligned."""
    _ioctl(fd, _UFFDIO_REGISTER, bytearray(_REGISTER.pack(start, length, _UFFDIO_REGISTER_MODE_MISSING, 0)))


def unregister(fd: int, start: int, length: int) -> None:
    """Stop reporting the range and wake its waiters; a page that is still absent reads as zero from then on.

    UFFDIO_UNREGISTER wakes them before it takes the lock of their mapping (userfaultfd_unregister, fs/userfaultfd.c): a
    fault that is raised between the two would wait for ever, since to answer it is ENOENT then.
    """
    _ioctl(fd, _UFFDIO_UNREGISTER, bytearray(_RANGE.pack(start, length)))
    wake(fd, start, length)


def copy(fd: int, dst: int, src: int, length: int) -> int:
    """Fill absent pages from `src` and wake their waiters; returns the bytes copied, from `dst` on: all, or fewer.

    Fewer than `length` means that the page after them stopped it, and a call for that page tells why. OSError when not
    even the first page was copied: EEXIST it is present, EAGAIN an event is pending, ENOENT no registered range is
    there, ESRCH the process has gone, EFAULT the source is gone, ENOSPC no huge page is left.
    """
    # Storing words is faster than packing a struct, and what user space has for addresses fits into signed ones.
    words = _copy_words
    words[0] = dst
    words[1] = src
    words[2] = length
    words[4] = 0
    try:
        _ioctl(fd, _UFFDIO_COPY, _copy_argument)
    except BlockingIOError:
        # A copy that stopped half-way is EAGAIN too, with its progress in the last field (UFFDIO_COPY(2const)).
        copied = words[4]
        if copied <= 0:
            raise
        return copied
    return length


class PageCopy:
    """`copy` of one page at a time with its argument at hand, for the path that nearly every fault takes.

    Whoever calls `call` has stored the page's address in `words[0]` and its source in `words[1]`; it raises as `copy`.
    """

    def __init__(self, fd: int, page_size: int) -> None:
        argument = bytearray(_COPY.pack(0, 0, page_size, 0, 0))
        self.words = memoryview(argument).cast("Q")
        self.call = partial(_ioctl, fd, _UFFDIO_COPY, argument)


def zeropage(fd: int, start: int, length: int) -> int:
    """Fill absent pages with zeros and wake their waiters; returns and raises as `copy`, EINVAL for huge pages."""
    _ZEROPAGE.pack_into(_zeropage_argument, 0, start, length, 0, 0)
    try:
        _ioctl(fd, _UFFDIO_ZEROPAGE, _zeropage_argument)
    except BlockingIOError:
        zeroed = int(_ZEROPAGE.unpack(_zeropage_argument)[3])
        if zeroed <= 0:
            raise
        return zeroed
    return length


def wake(fd: int, start: int, length: int) -> None:
    """Wake the threads that wait in the range; those whose page is still absent raise their fault again."""
    _RANGE.pack_into(_range_argument, 0, start, length)
    _ioctl(fd, _UFFDIO_WAKE, _range_argument)


def messages(data: bytes | memoryview) -> Iterator[tuple[int, int, int, int]]:
    """The messages that one read returned, as (event, a, b, c).

    UFFD_EVENT_PAGEFAULT: flags, address, thread id. UFFD_EVENT_REMOVE and UFFD_EVENT_UNMAP: start, end, 0 (bytes, end
    exclusive). UFFD_EVENT_REMAP: from, to, length. UFFD_EVENT_FORK: a new userfaultfd in the low 32 bits, 0, 0.
    """
    return _MESSAGE.iter_unpack(data)


class Messages:
    """Reads the messages of one userfaultfd, many at once, into a buffer that each read overwrites; no read waits.

    O_NONBLOCK alone would not do: it is of the open file description, which the VMM shares and may change at any time.
    """

    def __init__(self, fd: int, most: int) -> None:
        """`most` is how many messages one read takes; the descriptor is made non-blocking, and stays the caller's."""
        os.set_blocking(fd, False)
        self.data = memoryview(bytearray(most * MESSAGE_BYTES))
        self.words = self.data.cast("Q")
        """Of a page fault that was read alone the first word is UFFD_EVENT_PAGEFAULT and the third the address."""
        self.read = (_reading_at_once if _takes_no_wait(fd) else _reading_if_ready)(fd, self.data)
        """Read what is there; returns its bytes, None for nothing, and raises OSError when the userfaultfd fails."""
        self._fd = fd

    def check(self) -> None:
        """Raise OSError when the userfaultfd is blocking again: poll tells of an error then and of no message."""
        if os.get_blocking(self._fd):
            raise OSError(errno.EINVAL, "its VMM has made it blocking")


def _reading_at_once(fd: int, data: memoryview) -> Callable[[], int | None]:
    preadv = partial(os.preadv, fd, (data,), -1, _NO_WAIT)

    def read() -> int | None:
        try:
            return preadv()
        except BlockingIOError:
            return None

    return read


def _reading_if_ready(fd: int, data: memoryview) -> Callable[[], int | None]:
    """Read what poll has told of, which it does not where O_NONBLOCK is off (userfaultfd_poll, fs/userfaultfd.c).

    It may wait all the same, if the VMM takes off the flag and takes away the message between the two calls.
    """
    readinto = io.FileIO(fd, "rb", closefd=False).readinto
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    ready = [(fd, select.POLLIN)]
    return lambda: readinto(data) if poll.poll(0) == ready else None


def _takes_no_wait(fd: int) -> bool:
    """Whether reads of the userfaultfd take RWF_NOWAIT: since Linux 6.10, before it is EOPNOTSUPP (preadv2(2)).

    Asked with a buffer that is too short for a message, which is EINVAL and takes none.
    """
    try:
        os.preadv(fd, (bytearray(1),), -1, _NO_WAIT)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    return True


def map_read_only(fd: int, length: int) -> int:
    """Map a file privately for reading and return the address.

    Only the kernel reads through it (as the source of `copy`): a file truncated under it is EFAULT there, not SIGBUS.
    """
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_PRIVATE | MAP_NORESERVE, fd, 0)
    if address == _MAP_FAILED:
        raise _failed()
    return int(address)


def unmap(address: int, length: int) -> None:
    """Undo `map_read_only`."""
    if _libc.munmap(address, length) != 0:
        raise _failed()


def anonymous_memory(length: int) -> tuple[mmap.mmap, int]:
    """Zeroed private memory and its address, to compose a page in before it is copied."""
    memory = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def map_over(memory: mmap.mmap, fd: int) -> None:
    """Have `memory` be a mapping of the file, at the address that it has: views of it go on with the file's content."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = mmap.MAP_SHARED | _MAP_FIXED
    if _libc.mmap(address, len(memory), mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0) == _MAP_FAILED:
        raise _failed()
