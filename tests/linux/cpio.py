"""A newc cpio archive, as the kernel unpacks its initramfs from."""

import stat
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

DEVICES: Final = {"dev/console": (5, 1), "dev/null": (1, 3)}
"""What /init needs before it can mount a devtmpfs: the kernel opens /dev/console for it."""
MOUNT_POINTS: Final = ("dev", "proc", "sys", "tmp", "mnt")


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files by their paths, all of mode 755, and of the directories that they are in."""
    folders = sorted({str(parent) for name in (*files, *DEVICES) for parent in PurePosixPath(name).parents} - {"."})
    entries = [_entry(name, stat.S_IFDIR | 0o755) for name in dict.fromkeys((*MOUNT_POINTS, *folders))]
    entries += [_entry(name, stat.S_IFCHR | 0o600, device=device) for name, device in DEVICES.items()]
    entries += [_entry(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]
    return b"".join((*entries, _entry("TRAILER!!!", 0)))


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    # Its fields are in Documentation/driver-api/early-userspace/buffer-format.rst; inode numbers tell links only.
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return b"".join((*_padded(head), *_padded(data)))


def _padded(data: bytes) -> Iterator[bytes]:
    yield data
    yield b"\0" * (-len(data) % 4)
