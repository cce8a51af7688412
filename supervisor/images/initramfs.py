"""The initramfs of an image that is built: first_init and the kernel's modules (initramfs/buffer-format). Pure."""

import stat
from collections.abc import Sequence
from typing import Final

_FOLDERS: Final = ("dev", "modules", "lower", "upper", "merged")
MOST_MODULES: Final = 999


def archive(init: bytes, modules: Sequence[bytes], markers: Sequence[str], next_init: str | None = None) -> bytes:
    """Return a cpio archive for the kernel; modules are loaded in their order, and `markers` say what first_init does.

    Raises ValueError for more modules than have a name.
    """
    if len(modules) > MOST_MODULES:
        raise ValueError(f"{len(modules)} modules are more than the {MOST_MODULES} that are loaded")
    entries = [(name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in _FOLDERS]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    entries.append(("init", stat.S_IFREG | 0o755, init, (0, 0)))
    entries += [(f"modules/{at:03}", stat.S_IFREG | 0o644, data, (0, 0)) for at, data in enumerate(modules)]
    entries += [(name, stat.S_IFREG | 0o644, b"", (0, 0)) for name in markers]
    if next_init is not None:
        entries.append(("next_init", stat.S_IFREG | 0o644, next_init.encode() + b"\0", (0, 0)))
    out = [_entry(number, *entry) for number, entry in enumerate(entries, 1)]
    return b"".join((*out, _entry(0, "TRAILER!!!", 0, b"", (0, 0))))


def _entry(number: int, name: str, mode: int, data: bytes, device: tuple[int, int]) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = f"070701{''.join(f'{field:08x}' for field in fields)}{name}\0".encode()
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
