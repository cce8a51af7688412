"""What is booted: the nested host's initramfs, and the images that its guests are made of."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from supervisor.images.boot_arguments import boot_words
from supervisor.images.disk_room import Room
from supervisor.images.kernel import KernelError, to_elf
from supervisor.system.kernel_modules import in_order, module_name
from tests.harness.checkout import ROOT
from tests.harness.firecracker import Unavailable
from tests.linux.cpio import archive
from tests.linux.packages import CACHE, Debian

HERE: Final = Path(__file__).parent
# npt: guests' memory is the nested host's own, by nested paging. avic, sev: QEMU has neither.
HOST_MODULES: Final = {
    "virtio_pci": "", "virtio_console": "", "9p": "", "9pnet_virtio": "", "overlay": "", "tun": "",
    "kvm_amd": "npt=1 avic=0 sev=0",
}  # fmt: skip
GUEST_MODULES: Final = (
    "virtio_mmio", "virtio_blk", "virtio_rng", "virtio_net", "virtio_balloon", "vmw_vsock_virtio_transport",
    "crc32c_generic", "ext4", "ptp_kvm",
)  # fmt: skip
BOOT_WORDS: Final = (
    *(one.word for one in boot_words(version="1.12.1", root=None)),
    # QEMU's processor is slow, and its timer late.
    *("mitigations=off", "no_timer_check"),
    # What Linux takes by itself on a processor whose TSC is invariant, as QEMU's is not.
    *("clocksource=tsc", "tsc=reliable"),
)
DISK: Final = {"drive_id": "data", "path_on_host": "disk.ext4", "is_root_device": False, "is_read_only": False}
GUEST_PROGRAMS: Final = {"socat": "usr/bin/socat", "phc2sys": "usr/sbin/phc2sys", "chronyd": "usr/sbin/chronyd"}
LARGE_MIB: Final = 3584
"""More than the 3 GiB that lie below the gap which x86 has in its addresses: Firecracker makes two regions of it."""
IMAGES: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain": {},
    "full": {
        "vcpu_count": 2,
        "drives": [DISK],
        "entropy": {},
        "vsock": {"guest_cid": 3, "uds_path": "v.sock"},
    },
    "large": {"mem_size_mib": LARGE_MIB, "drives": [DISK], "arguments": "clock=phc2sys"},
    "huge": {"huge_pages": "2M"},
    "devices": {
        # Its snapshots are whole ones, for it has a balloon.
        "mem_size_mib": 128,
        "drives": [DISK],
        "arguments": "clock=chrony",
        "balloon": {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1},
        "network-interfaces": [{"iface_id": "eth0", "guest_mac": "06:00:AC:10:00:02", "host_dev_name": "tap0"}],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Machines:
    """Where what is booted lies."""

    kernel: Path
    initrd: Path
    images: Path


def build(debian: Debian, directory: Path) -> Machines:
    """Make them in a directory of the cache. Raises Unavailable."""
    files = directory / "files"
    files.mkdir()
    _elf(debian.vmlinuz, files / "vmlinux")
    guest = _modules(debian, GUEST_MODULES)
    (files / "initrd").write_bytes(_initramfs(debian, "guest_init.sh", guest, {}))
    _disk(debian, files / "disk.ext4")
    for name, configuration in IMAGES.items():
        _image(directory / "images" / name, files, configuration)
    session = (
        (HERE / "host_session.sh").read_text().replace("@CHECKOUT@", str(ROOT)).replace("@PYTHON@", sys.executable)
    )
    initrd = directory / "host.initrd"
    own = {"checkout": str(ROOT).encode(), "session": session.encode()}
    initrd.write_bytes(_initramfs(debian, "host_init.sh", _modules(debian, HOST_MODULES), own))
    return Machines(debian.vmlinuz, initrd, directory / "images")


def _initramfs(debian: Debian, init: str, loaded: Mapping[str, bytes], own: Mapping[str, bytes]) -> bytes:
    files = {
        "init": (HERE / init).read_bytes(),
        "bin/busybox": debian.file("bin/busybox", "usr/bin/busybox").read_bytes(),
        "modules/order": " ".join(loaded).encode(),
    }
    for name, data in loaded.items():
        files[f"modules/{name}.ko"] = data
        if options := HOST_MODULES.get(name):
            files[f"modules/{name}.options"] = options.encode()
    return archive({**files, **own})


def _modules(debian: Debian, names: Iterable[str]) -> dict[str, bytes]:
    """Return modules and what they need, each behind what it needs; what is built in is left out."""
    files = {name: str(path) for path in debian.modules.rglob("*.ko*") if (name := module_name(path.name)) is not None}
    return dict(in_order(names, files, lambda path: Path(path).read_bytes()))


def _elf(vmlinuz: Path, target: Path) -> None:
    """Have the kernel's ELF there, which takes seconds to unpack: the cache keeps it."""
    kept = CACHE / f"vmlinux-{vmlinuz.name.partition('-')[2]}"
    if not kept.exists():
        new = target.with_name("vmlinux.new")
        try:
            to_elf(vmlinuz, new, Room())
        except KernelError as error:
            raise Unavailable(f"real Linux guests: {vmlinuz.name}: {error}") from error
        new.rename(kept)
    target.hardlink_to(kept)


def _disk(debian: Debian, image: Path) -> None:
    """Make an ext4 with the guests' programs and their libraries."""
    tree = image.with_name("tree")
    for folder in ("bin", "lib"):
        (tree / folder).mkdir(parents=True)
    for name, place in GUEST_PROGRAMS.items():
        program = debian.file(place, f"{place}1")
        shutil.copy(program, tree / "bin" / name)
        for soname, library in debian.libraries(program):
            shutil.copy(library, tree / "lib" / soname)
    with image.open("wb") as file:
        file.truncate(48 << 20)
    command = (*debian.program("mke2fs"), "-q", "-t", "ext4", "-d", str(tree), str(image))
    subprocess.run(command, check=True, capture_output=True)


def _image(directory: Path, files: Path, configuration: Mapping[str, Any]) -> None:
    directory.mkdir(parents=True)
    rest = dict(configuration)
    machine = {"vcpu_count": 1, "mem_size_mib": 256}
    machine |= {name: rest.pop(name) for name in ("vcpu_count", "mem_size_mib", "huge_pages") if name in rest}
    arguments = " ".join((*BOOT_WORDS, *rest.pop("arguments", "").split()))
    boot = {"kernel_image_path": "vmlinux", "initrd_path": "initrd", "boot_args": arguments}
    drives = rest.pop("drives", [])
    for name in ("vmlinux", "initrd", *(drive["path_on_host"] for drive in drives)):
        (directory / name).hardlink_to(files / name)
    vm = {"boot-source": boot, "drives": drives, "machine-config": machine, **rest}
    (directory / "vm.json").write_text(json.dumps(vm))
