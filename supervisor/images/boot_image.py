"""Images that boot: directories `images/<name>/` with a vm.json in Firecracker's --config-file format.

The paths in it are relative to the directory. The image `pagewalker` is built in. Every function that takes a path
blocks on the disk.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from supervisor.errors import BadRequestError, InvalidImageError
from supervisor.images import builtin_image
from supervisor.images.builtin_image import PAGEWALKER
from supervisor.images.machine_files import check_files, place_machine, read_vm_json
from supervisor.images.machine_names import check_names
from supervisor.images.vm_json import VmJson
from supervisor.store.layout import VM_JSON
from supervisor.system.regular_files import shown

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_RULE: Final = (
    "a name has up to 63 letters, digits, dots, dashes and underscores, no blanks, a letter or digit first"
)


class UnknownImageError(InvalidImageError):
    """There is no image of this name; the message may be followed by which there are."""


@dataclass(frozen=True)
class BootImage:
    """An image that was found usable; the paths in its configuration are relative to its directory."""

    name: str
    directory: Path
    config: VmJson


def is_name(name: str) -> bool:
    """Return whether an image in `images/` can have this name."""
    return name != PAGEWALKER and _NAME.fullmatch(name) is not None


def load_image(images: Path, name: str) -> BootImage:
    """Return an image by its name; raises InvalidImageError with what is wrong and what to do about it.

    `pagewalker` is the built-in image, whatever is in `images`. UnknownImageError where there is none of this name.
    """
    if name == PAGEWALKER:
        return BootImage(PAGEWALKER, builtin_image.directory(), builtin_image.configuration())
    if not _NAME.fullmatch(name):
        raise UnknownImageError(f"image '{shown(name[:64])}' is refused: {NAME_RULE}: choose another name")
    directory = images / name
    check_directory(directory)
    try:
        return _read(directory)
    except FileNotFoundError as error:
        if directory.is_dir():
            missing = f"image {name}: {directory} has no {VM_JSON}, nor a state and a mem: put them there"
            raise UnknownImageError(missing) from error
        raise UnknownImageError(f"there is no image {name!r}: make a directory with a {VM_JSON} in {images}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidImageError(f"image {name}: {directory / VM_JSON}: {reason}") from error


def check_directory(directory: Path) -> None:
    """Raise InvalidImageError where an image's directory is a link out of that of the images."""
    found = os.path.realpath(directory)
    if not PurePath(found).is_relative_to(os.path.realpath(directory.parent)):
        raise InvalidImageError(
            f"image {directory.name}: {directory} is a link to {found}: put the directory itself there, or mount it"
        )


def prepare(
    image: BootImage,
    directory: Path,
    *,
    memory_mib: int,
    vcpus: int,
    boot_args_extra: Sequence[str] = (),
    track_dirty_pages: bool | None = None,
) -> None:
    """Put into an instance's directory what its VMM boots: vm.json, kernel, initrd and disks.

    `boot_args_extra` are words behind the image's boot_args, or instead of Firecracker's own where the image has none;
    of a word given twice, pagewalker and most options of Linux take the last. Raises BadRequestError where the guest
    cannot be booted with these, and OSError.
    """
    machine: dict[str, Any] = {"vcpu_count": vcpus, "mem_size_mib": memory_mib}
    if track_dirty_pages is not None:
        machine["track_dirty_pages"] = track_dirty_pages
    boot_args = _boot_args(image.config.boot_source.boot_args, boot_args_extra)
    builtin_image.check_boot_args(image.name, boot_args or "", memory_mib)
    place_machine(image.config, image.directory, directory, machine, renamed=True, boot_args=boot_args)


def _boot_args(given: str | None, extra: Sequence[str]) -> str | None:
    for word in extra:
        # What a kernel command line may hold: linux-loader's Cmdline, as Firecracker uses it.
        if not word or not word.isascii() or not word.isprintable() or " " in word:
            raise BadRequestError(f"cmd: {word!r} is refused: each word has to be printable ASCII without blanks")
    return " ".join(filter(None, (given, *extra))) if extra else given


def _read(directory: Path) -> BootImage:
    """Return the image in a directory; raises OSError and ValueError."""
    config = read_vm_json(directory)
    check_names(config, renamed=True)
    check_files(config, directory)
    return BootImage(directory.name, directory, config)
