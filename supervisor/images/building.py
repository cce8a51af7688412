"""An image of its parts: a kernel, perhaps an initrd, and a root; made in a directory of its own.

Every function blocks on the disk. How far it is counts in bytes of what was given.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from supervisor.concurrency.progress import counted, step
from supervisor.errors import BadRequestError, InvalidImageError, SupervisorError
from supervisor.guests.boot import first_init_path
from supervisor.images import initramfs, kernel_checks
from supervisor.images.boot_arguments import boot_words
from supervisor.images.disk_room import Room
from supervisor.images.ext4 import Ext4Error
from supervisor.images.kernel import KernelError, to_elf
from supervisor.images.memory_size import parse_disk_size, parse_size
from supervisor.images.root_disk import TarError, members, write_empty, write_root
from supervisor.images.vm_json import OWN_SECTION
from supervisor.models import BuildImageRequest, MadeImage
from supervisor.models.base import MIB
from supervisor.store.layout import VM_JSON
from supervisor.system.kernel_modules import LARGEST_MODULE, WANTED, in_order, module_name
from supervisor.system.regular_files import new_file
from supervisor.system.sparse_files import allocated

PARTS: Final = ("kernel", "config", "initrd", "modules", "rootfs")
"""What may be given: files, of which modules and rootfs are tars."""
KERNEL: Final = "vmlinux"
INITRD: Final = "initrd"
ROOT: Final = "root.ext4"
SCRATCH: Final = "scratch.ext4"
METADATA_DRIVE: Final = "metadata"
METADATA_FILE: Final = "metadata.img"
METADATA_BYTES: Final = 64 << 10
"""Room for all the metadata that may be given, and for who the instance is."""
SPARE: Final = 512 * MIB
"""Bytes of room that a root has without a size where its guest may write to it: holes, on the host's disk."""
MOST_MODULES: Final = 20_000


@dataclass(frozen=True)
class Given:
    """What an image is made of: the files of PARTS that there are, and which Firecracker is to boot it."""

    request: BuildImageRequest
    files: Mapping[str, Path]
    version: str | None
    room: Room
    """What its files may take on the host's disk."""


def build(given: Given, directory: Path) -> MadeImage:
    """Put the image's files into an empty directory.

    Raises InvalidImageError or BadRequestError, InsufficientResourcesError, and OSError.
    """
    return _Builder(given, directory).build()


def check(request: BuildImageRequest, files: Mapping[str, object]) -> None:
    """Raise BadRequestError for what cannot be asked together."""
    wrong = None
    if "kernel" not in files:
        wrong = "a kernel is needed: a vmlinux or a bzImage"
    elif "rootfs" not in files and (request.writable or request.scratch or request.size or request.init):
        wrong = "size, writable, scratch and init are a root's, and there is none: give a rootfs, or leave them out"
    elif request.writable and request.scratch:
        wrong = "scratch is for what is written over a root that is shared, and writable shares none: give one of them"
    elif "initrd" in files and (request.scratch or request.init or "modules" in files):
        wrong = "scratch, init and modules are for the initramfs that is made where no initrd is given: leave one out"
    if wrong is not None:
        raise BadRequestError(f"image {request.name}: {wrong}")
    parse_size(request.memory)
    for size in (request.size, request.scratch):
        if size is not None:
            parse_disk_size(size)


class _Builder:
    def __init__(self, given: Given, directory: Path) -> None:
        self._request = given.request
        self._files = given.files
        self._version = given.version
        self._room = given.room
        self._directory = directory
        self._uses: set[str] = set()
        self._notes: list[str] = []

    def build(self) -> MadeImage:
        check(self._request, self._files)
        made: dict[str, Any] = {"name": self._request.name}
        made["kernel"] = self._of("kernel", self._kernel)
        drives: list[dict[str, Any]] = []
        modules: list[tuple[str, bytes]] = []
        if "rootfs" in self._files:
            self._uses.add("root")
            made |= self._of("rootfs", self._root)
            drives.append(_drive("root", ROOT, read_only=not self._request.writable))
        if "modules" in self._files:
            modules = self._of("modules", self._modules)
        if "initrd" in self._files:
            self._given_initrd()
        elif "rootfs" in self._files:
            drives += self._own_initrd(modules)
        with new_file(self._directory / METADATA_FILE) as file:
            file.truncate(METADATA_BYTES)
            os.fsync(file.fileno())
        drives.append(_drive(METADATA_DRIVE, METADATA_FILE, read_only=True))
        made["modules"] = tuple(name for name, _ in modules)
        made["findings"] = self._of("config", lambda: self._findings(made["modules"]))
        made["boot_words"] = self._boot_words()
        self._write_vm_json(" ".join(one.word for one in made["boot_words"]), drives)
        return MadeImage(**made, notes=tuple(self._notes))

    def _of(self, part: str, make: Callable[[], Any]) -> Any:
        """Return what is made of a part; what is wrong with that is said of it."""
        step(part)
        try:
            return make()
        except (KernelError, TarError, Ext4Error, ValueError) as error:
            if isinstance(error, SupervisorError):
                raise
            raise InvalidImageError(f"image {self._request.name}: {part}: {error}") from error

    def _kernel(self) -> str:
        given = self._files["kernel"]
        with counted(given.stat().st_size, "bytes"):
            return to_elf(given, self._directory / KERNEL, self._room)

    def _root(self) -> dict[str, Any]:
        given, target, request = self._files["rootfs"], self._directory / ROOT, self._request
        size = parse_disk_size(request.size) if request.size else None
        with counted(given.stat().st_size, "bytes"):
            root_bytes, entries = write_root(
                given,
                target,
                size=size,
                room=self._room,
                spare=SPARE if request.writable else 0,
                journal=request.writable,
            )
        if request.writable:
            self._notes.append("each fork has a copy of the root disk: what that costs is in the estimate of a fan-out")
        return {"root_bytes": root_bytes, "root_disk_bytes": allocated(target.stat()), "entries": entries}

    def _modules(self) -> list[tuple[str, bytes]]:
        given = self._files["modules"]
        kept = given.with_name("modules.d")
        kept.mkdir(mode=0o700)
        files: dict[str, str] = {}
        with counted(given.stat().st_size, "bytes"), given.open("rb") as tar:
            for member, data in members(tar):
                name = module_name(member.name)
                if name is None or not member.isreg():
                    continue
                if member.size > LARGEST_MODULE:
                    raise TarError(f"{member.name!r}: a module has at most {LARGEST_MODULE >> 20} MiB")
                if len(files) >= MOST_MODULES:
                    raise TarError(f"it has more than {MOST_MODULES} modules")
                self._room.take(member.size)
                # By a number: names in a tar are somebody else's.
                path = kept / f"{len(files)}.{member.name.rpartition('.')[2]}"
                path.write_bytes(data.read(member.size))
                files[name] = str(path)
        found = in_order(WANTED, files, lambda path: Path(path).read_bytes())
        if not found:
            raise TarError("it has none of the modules that a guest here needs: " + ", ".join(WANTED))
        return found

    def _given_initrd(self) -> None:
        (self._directory / INITRD).hardlink_to(self._files["initrd"])
        with (self._directory / INITRD).open("rb") as file:
            os.fsync(file.fileno())

    def _own_initrd(self, modules: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
        """Write the initramfs, and the scratch disk where one is asked for, whose drive is returned."""
        request = self._request
        self._uses.add("initramfs")
        markers = ["writable"] if request.writable else []
        drives: list[dict[str, Any]] = []
        if not request.writable:
            self._uses.add("shared root")
        if request.scratch is not None:
            markers = ["scratch"]
            write_empty(self._directory / SCRATCH, parse_disk_size(request.scratch), self._room)
            drives.append(_drive("scratch", SCRATCH, read_only=False))
            self._notes.append("forks share the root; what one writes is on a scratch disk of its own")
        elif not request.writable:
            self._notes.append(
                "forks share the root; what a guest writes over it is in its memory, or with scratch on a disk"
            )
        data = initramfs.archive(
            first_init_path().read_bytes(), [module for _, module in modules], markers, request.init
        )
        self._room.take(len(data))
        _write(self._directory / INITRD, data)
        return drives

    def _findings(self, modules: tuple[str, ...]) -> Any:
        kernel = self._directory / KERNEL
        given = self._files.get("config")
        if given is not None:
            if given.stat().st_size > kernel_checks.LARGEST_CONFIG:
                raise ValueError(f"a kernel's configuration has at most {kernel_checks.LARGEST_CONFIG >> 20} MiB")
            config: str | None = given.read_text(encoding="ascii", errors="replace")
        else:
            config = kernel_checks.embedded_config(kernel)
        settings = kernel_checks.settings_of(config) if config is not None else None
        found = kernel_checks.strings_in(kernel) if settings is None else frozenset()
        return kernel_checks.findings(settings, found, modules, self._uses)

    def _boot_words(self) -> Any:
        foreign = "initrd" in self._files and "rootfs" in self._files
        root = ("rw" if self._request.writable else "ro") if foreign else None
        return boot_words(version=self._version, root=root, extra=self._request.boot_args)

    def _write_vm_json(self, boot_args: str, drives: list[dict[str, Any]]) -> None:
        boot_source = {"kernel_image_path": KERNEL, "boot_args": boot_args}
        if (self._directory / INITRD).exists():
            boot_source["initrd_path"] = INITRD
        machine = {"vcpu_count": self._request.vcpus, "mem_size_mib": parse_size(self._request.memory) // MIB}
        document = {
            "boot-source": boot_source,
            "drives": drives,
            "machine-config": machine,
            "entropy": {},
            OWN_SECTION: {"metadata_drive": METADATA_DRIVE},
        }
        _write(self._directory / VM_JSON, json.dumps(document, indent=1).encode() + b"\n")


def _drive(name: str, file: str, *, read_only: bool) -> dict[str, Any]:
    # The words that Firecracker adds for a root device, root=/dev/vda and ro or rw, are for a kernel without an initrd.
    return {"drive_id": name, "path_on_host": file, "is_root_device": False, "is_read_only": read_only}


def _write(path: Path, data: bytes) -> None:
    with new_file(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
