"""What a guest under Firecracker, and forks of it, need of their kernel, and what a kernel says that it has."""

import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from supervisor.models import KernelFinding

LARGEST_CONFIG: Final = 4 << 20
"""Bytes of a kernel's configuration; a distribution's has some 300 000."""

_MARK: Final = b"IKCFG_ST"
"""In front of it, gzipped: kernel/configs.c."""
_PIECE: Final = 1 << 20
_LINE: Final = re.compile(r"^CONFIG_(\w+)=([ym])$", re.MULTILINE)
_ANY: Final = re.compile(r"^(# )?CONFIG_\w+[ =]", re.MULTILINE)

Setting = Literal["y", "m"]


@dataclass(frozen=True)
class Need:
    """An option of a kernel: what it means where it is missing, words that its code has, and the module it may be."""

    option: str
    missing: str
    strings: tuple[bytes, ...]
    module: str | None = None
    only_for: Literal["root", "shared root", "initramfs"] | None = None
    boots_without: bool = True


NEEDS: Final = (
    Need("VIRTIO_MMIO", "no device of the VM is found, disks neither", (b"virtio-mmio",), "virtio_mmio", None, False),
    Need("VIRTIO_BLK", "the root disk is not found", (b"virtio_blk",), "virtio_blk", "root", False),
    Need("EXT4_FS", "the root disk cannot be mounted", (b"EXT4-fs",), "ext4", "root", False),
    Need("OVERLAY_FS", "the shared root gets no overlay to be written to: build it with --writable",
         (b"overlayfs: ",), "overlay", "shared root", False),
    Need("BLK_DEV_INITRD", "the initramfs is not unpacked", (b"Unpacking initramfs", b"rootfs image is"), None,
         "initramfs", False),
    Need("DEVTMPFS", "nothing is in /dev", (b"devtmpfs",), None, "initramfs", False),
    Need("SERIAL_8250_CONSOLE", "the guest's console, and so `logs`, stays empty", (b"serial8250",)),
    Need("VMGENID", "forks of one snapshot draw the same random numbers until each has gathered entropy of its own",
         (b"VMGENID", b"vmgenid"), "vmgenid"),
    Need("KVM_GUEST", "there is no kvm-clock: a restored guest's clocks depend on its TSC", (b"kvm-clock",)),
    Need("PTP_1588_CLOCK_KVM", "a fork's clock stays behind by as long as its snapshot is old: nothing in the guest "
         "can read the host's (/dev/ptp0)", (b"KVM virtual PTP",), "ptp_kvm"),
    Need("HW_RANDOM_VIRTIO", "the VM's entropy device is not used", (b"virtio_rng",), "virtio_rng"),
    Need("VIRTIO_NET", "there is no network", (b"virtio_net",), "virtio_net"),
    Need("VIRTIO_VSOCKETS", "there is no vsock", (b"vmw_vsock_virtio_transport",), "vmw_vsock_virtio_transport"),
    Need("VIRTIO_BALLOON", "there is no balloon", (b"virtio_balloon",), "virtio_balloon"),
)  # fmt: skip


def embedded_config(vmlinux: Path) -> str | None:
    """Return the configuration that a kernel has in it (CONFIG_IKCONFIG), None without one. Blocks on the disk."""
    start = _places(vmlinux, (_MARK,)).get(_MARK)
    if start is None:
        return None
    with vmlinux.open("rb") as file:
        file.seek(start + len(_MARK))
        given = file.read(LARGEST_CONFIG)
    try:
        return zlib.decompressobj(31).decompress(given, LARGEST_CONFIG).decode("ascii", "replace")
    except zlib.error:
        return None


def settings_of(config: str) -> Mapping[str, Setting]:
    """Return which options a configuration has built in (y) or as modules (m). Pure; ValueError where it is none."""
    if not _ANY.search(config):
        raise ValueError("it is no kernel configuration: no line of it begins with CONFIG_")
    return {name: "y" if value == "y" else "m" for name, value in _LINE.findall(config)}


def strings_in(vmlinux: Path) -> frozenset[str]:
    """Return the options whose code a kernel seems to have, by words in it. Blocks on the disk."""
    found = _places(vmlinux, tuple(word for need in NEEDS for word in need.strings))
    return frozenset(need.option for need in NEEDS if any(word in found for word in need.strings))


def _places(path: Path, words: Collection[bytes]) -> dict[bytes, int]:
    """Return where each word that is there is first; a piece at a time, so that other threads have their turn."""
    found: dict[bytes, int] = {}
    longest = max(map(len, words))
    with path.open("rb") as file:
        start, piece = 0, b""
        while more := file.read(_PIECE):
            piece += more
            for word in words:
                if word not in found and (place := piece.find(word)) >= 0:
                    found[word] = start + place
            kept = min(len(piece), longest - 1)
            start, piece = start + len(piece) - kept, piece[len(piece) - kept :]
    return found


def findings(
    settings: Mapping[str, Setting] | None, found: Collection[str], loaded: Collection[str], uses: Collection[str]
) -> tuple[KernelFinding, ...]:
    """Return what there is of each option that is needed. Pure.

    `settings` are those of a configuration; without one `found` tells what seems to be built in. `loaded` are the
    modules that the initramfs loads, and `uses` for what needs are asked that not every image has.
    """
    return tuple(
        _finding(need, settings, found, loaded) for need in NEEDS if need.only_for is None or need.only_for in uses
    )


def _finding(
    need: Need, settings: Mapping[str, Setting] | None, found: Collection[str], loaded: Collection[str]
) -> KernelFinding:
    built_in = settings.get(need.option) == "y" if settings is not None else need.option in found
    level: Literal["info", "warning", "alarm"] = "warning" if need.boots_without else "alarm"
    if built_in:
        return KernelFinding(option=need.option, status="built in", level="info")
    if need.module is not None and need.module in loaded:
        return KernelFinding(option=need.option, status="module", level="info", meaning="the initramfs loads it")
    if settings is not None and settings.get(need.option) == "m":
        meaning = f"a module that nothing here loads: unless the root or its initrd does, {need.missing}"
        return KernelFinding(option=need.option, status="module", level=level, meaning=meaning)
    if settings is None:
        meaning = f"not found in the kernel, which has no configuration in it, and none was given: {need.missing}"
        return KernelFinding(option=need.option, status="not found", level=level, meaning=meaning)
    return KernelFinding(option=need.option, status="missing", level=level, meaning=need.missing)
