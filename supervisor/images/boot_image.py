"""Images: what a new VM boots from, and how its files come into an instance's directory.

An image is a directory `images/<name>/` with a vm.json in Firecracker's --config-file format, whose paths are relative
to it. The image `pagewalker` is built in.

Every function that takes a path blocks on the disk.
"""

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from supervisor.embedded.walker import CommandLineError, parse_command_line
from supervisor.errors import BadRequestError, InvalidImageError
from supervisor.guests.boot import kernel_path
from supervisor.images.vm_json import IGNORED_SECTIONS, VmJson, parse_vm_json
from supervisor.models import HypervisorName
from supervisor.models.base import MIB
from supervisor.system.sparse_files import sparse_copy

PAGEWALKER: Final = "pagewalker"
VM_JSON: Final = "vm.json"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE: Final = (
    "a name has up to 63 letters, digits, dots, dashes and underscores, no blanks, a letter or digit first"
)


@dataclass(frozen=True)
class Image:
    """An image that was found usable; the paths in its configuration are relative to its directory."""

    name: str
    directory: Path
    config: VmJson


@dataclass(frozen=True)
class PlacedFile:
    """A file of an image: where it is there, and what an instance's directory calls it."""

    source: str
    target: str
    writable: bool


def list_images(images: Path) -> tuple[str, ...]:
    """Return the names of the images that boot, the built-in one first."""
    found = sorted(path.parent.name for path in images.glob(f"*/{VM_JSON}"))
    return (PAGEWALKER, *(name for name in found if name != PAGEWALKER and _boots(images, name)))


def _boots(images: Path, name: str) -> bool:
    if not is_name(name):
        return False
    try:
        _read(images / name)
    except (OSError, ValueError):
        return False
    return True


def load_image(images: Path, name: str) -> Image:
    """Return an image by its name; raises InvalidImageError with what is wrong and what to do about it.

    `pagewalker` is the built-in image, whatever is in `images`.
    """
    if name == PAGEWALKER:
        return _pagewalker()
    if not _NAME.fullmatch(name):
        raise _unknown(images, f"image {name[:64]!r} is refused: {_NAME_RULE}: choose another name")
    directory = images / name
    try:
        return _read(directory)
    except FileNotFoundError as error:
        if directory.is_dir():
            missing = f"image {name}: {directory} has no {VM_JSON}, nor a state and a mem: put them there"
            raise _unknown(images, missing) from error
        raise _unknown(images, f"there is no image {name!r}: make a directory with a {VM_JSON} in {images}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidImageError(f"image {name}: {directory / VM_JSON}: {reason}") from error


def _read(directory: Path) -> Image:
    """Return the image in a directory; raises OSError and ValueError."""
    image = Image(directory.name, directory, read_vm_json(directory))
    check_files(image)
    return image


def is_name(name: str) -> bool:
    """Return whether an image in `images/` can have this name."""
    return name != PAGEWALKER and _NAME.fullmatch(name) is not None


def check_hypervisor(image: Image, hypervisor: HypervisorName) -> None:
    """Raises InvalidImageError where this hypervisor cannot run the image."""
    if hypervisor == "embedded" and image.name != PAGEWALKER:
        raise InvalidImageError(
            f"image {image.name} needs firecracker: the embedded VMM's CPU is simulated and runs {PAGEWALKER} only"
        )
    if hypervisor == "firecracker" and image.name == PAGEWALKER and platform.machine() != "x86_64":
        raise InvalidImageError(
            f"image {PAGEWALKER} is an x86_64 guest, and this is {platform.machine()}: choose the hypervisor embedded"
        )


def announces_ready(image_name: str) -> bool:
    """Return whether the image's guest prints `ready` when it has booted."""
    return image_name == PAGEWALKER


def prepare(
    image: Image,
    directory: Path,
    *,
    memory_mib: int,
    vcpus: int,
    boot_args_extra: Sequence[str] = (),
    track_dirty_pages: bool | None = None,
) -> None:
    """Put into an instance's directory what its VMM boots: vm.json, kernel, initrd and disks.

    `boot_args_extra` are words behind the image's boot_args, or instead of Firecracker's own where the image has none;
    of a word given twice, pagewalker and most options of Linux take the last. Files that the guest cannot write become
    hard links where that is possible: do not change an image's files in place. Raises BadRequestError where the guest
    cannot be booted with these, and OSError.
    """
    machine: dict[str, Any] = {"vcpu_count": vcpus, "mem_size_mib": memory_mib}
    if track_dirty_pages is not None:
        machine["track_dirty_pages"] = track_dirty_pages
    config = _configuration(image, machine, boot_args_extra)
    if image.name == PAGEWALKER:
        try:
            parse_command_line(config["boot-source"]["boot_args"], memory_mib * MIB)
        except CommandLineError as error:
            raise BadRequestError(f"image {PAGEWALKER} cannot run in {memory_mib} MiB: {error}") from error
    inline_cpu_config(image.config, image.directory, config)
    for file in machine_files(image.config):
        place((image.directory / file.source).resolve(), directory / file.target, file.writable)
    (directory / VM_JSON).write_text(json.dumps(config, indent=1) + "\n")


def copy_machine(source: Path, fork: Path) -> None:
    """Put into a fork's directory what its source's VMM has: vm.json, kernel and initrd, and its disks as they are now.

    The source must not be running. One made from a snapshot alone has none of these. Raises OSError.
    """
    copy_disks(source, fork, copy_fixed(source, fork))


def writable_disks(directory: Path) -> tuple[str, ...]:
    """Return the names of the files in an instance's directory that its guest can write, as far as vm.json says."""
    if not bootable(directory):
        return ()
    return tuple(file.source for file in machine_files(read_vm_json(directory)) if file.writable)


def copy_disks(source: Path, fork: Path, names: Iterable[str]) -> None:
    """Copy disks of an instance that is not running, or is paused, as they are now; raises OSError."""
    for name in names:
        place(source / name, fork / name, writable=True)


def copy_fixed(source: Path, fork: Path) -> tuple[str, ...]:
    """Put into a fork's directory what of its source's never changes: vm.json and what no guest can write.

    Returns the names of the files that its guest can write. Raises OSError.
    """
    if not bootable(source):
        return ()
    text = (source / VM_JSON).read_bytes()
    files = tuple(machine_files(parse_vm_json(text)))
    for file in files:
        if not file.writable:
            place(source / file.source, fork / file.source, writable=False)
    (fork / VM_JSON).write_bytes(text)
    return tuple(file.source for file in files if file.writable)


def bootable(directory: Path) -> bool:
    """Return whether an instance's directory says how to boot it."""
    return (directory / VM_JSON).exists()


def copied_bytes(source: Path) -> int:
    """Return how many bytes on disk `copy_machine` copies from this directory at most: those of writable disks."""
    files = machine_files(read_vm_json(source)) if bootable(source) else ()
    # st_blocks counts 512 bytes whatever the file system's blocks are: stat(2).
    return sum((source / file.source).stat().st_blocks * 512 for file in files if file.writable)


def _unknown(images: Path, problem: str) -> InvalidImageError:
    return InvalidImageError(f"{problem}, or take one of these: {', '.join(list_images(images))}")


def _pagewalker() -> Image:
    kernel = kernel_path()
    config = {"boot-source": {"kernel_image_path": kernel.name, "boot_args": ""}}
    return Image(PAGEWALKER, kernel.parent, VmJson.model_validate(config))


def read_vm_json(directory: Path) -> VmJson:
    """Return what is in a directory's vm.json; raises OSError, and ValueError with one line."""
    return parse_vm_json((directory / VM_JSON).read_bytes())


def machine_files(config: VmJson) -> Iterator[PlacedFile]:
    """Yield the files that a VM's configuration names; placed ones are named as the placed configuration names them."""
    yield PlacedFile(config.boot_source.kernel_image_path, "kernel", writable=False)
    if config.boot_source.initrd_path is not None:
        yield PlacedFile(config.boot_source.initrd_path, "initrd", writable=False)
    for drive in config.drives:
        if drive.path_on_host is not None:
            yield PlacedFile(drive.path_on_host, f"disk.{drive.drive_id}", writable=not drive.is_read_only)
    for device in config.pmem:
        yield PlacedFile(device.path_on_host, f"pmem.{device.id}", writable=not device.read_only)


def _configuration(image: Image, machine: dict[str, Any], boot_args_extra: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of an instance, with the names that its files have in the instance's directory."""
    config: dict[str, Any] = image.config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for section in IGNORED_SECTIONS:
        config.pop(section, None)
    config["machine-config"] = {**config.get("machine-config", {}), **machine}
    for word in boot_args_extra:
        # What a kernel command line may hold: linux-loader's Cmdline, as Firecracker uses it.
        if not word or not word.isascii() or not word.isprintable() or " " in word:
            raise BadRequestError(f"cmd: {word!r} is refused: each word has to be printable ASCII without blanks")
    boot_source = config["boot-source"]
    if boot_args_extra:
        boot_source["boot_args"] = " ".join(filter(None, (image.config.boot_source.boot_args, *boot_args_extra)))
    boot_source["kernel_image_path"] = "kernel"
    if image.config.boot_source.initrd_path is not None:
        boot_source["initrd_path"] = "initrd"
    for drive in config.get("drives", ()):
        if drive.get("path_on_host") is not None:
            drive["path_on_host"] = f"disk.{drive['drive_id']}"
    for device in config.get("pmem", ()):
        device["path_on_host"] = f"pmem.{device['id']}"
    return config


def inline_cpu_config(config: VmJson, directory: Path, document: dict[str, Any]) -> None:
    """Put the content of a cpu-config that is a path into `document`: only --config-file takes a path."""
    if isinstance(config.cpu_config, str):
        document["cpu-config"] = json.loads((directory / config.cpu_config).read_bytes())


def check_files(image: Image) -> None:
    """Raises ValueError where a file that the configuration names is not there or not in the image's directory."""
    names = [file.source for file in machine_files(image.config)]
    if isinstance(image.config.cpu_config, str):
        names.append(image.config.cpu_config)
    inside = image.directory.resolve()
    for name in names:
        path = (image.directory / name).resolve()
        if not path.is_relative_to(inside):
            raise ValueError(f"{name} is a link to {path}: put the file itself into the image's directory")
        if not path.is_file():
            raise ValueError(f"{name} is no file in the image's directory: put it there, or correct the path")
        if not os.access(path, os.R_OK):
            raise ValueError(f"{name} cannot be read: change its mode")
    if isinstance(image.config.cpu_config, str):
        try:
            json.loads((image.directory / image.config.cpu_config).read_bytes())
        except ValueError as error:
            raise ValueError(f"cpu-config: {image.config.cpu_config} is no JSON: {error}") from error


def place(source: Path, target: Path, writable: bool) -> None:
    """Link or copy a file into an instance's directory; what the guest may write is a copy of its own."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not writable:
        try:
            os.link(source, target)
            return
        except FileExistsError:
            raise
        except OSError:
            # Another file system, too many links, somebody else's file (fs.protected_hardlinks): a copy does as well.
            pass
    sparse_copy(source, target)
