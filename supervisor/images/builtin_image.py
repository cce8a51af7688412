"""The image that is built in: pagewalker, forktui's own guest."""

import platform
from pathlib import Path
from typing import Final

from supervisor.errors import BadRequestError, InvalidImageError
from supervisor.guests.boot import kernel_path
from supervisor.guests.command_line import CommandLineError, parse_command_line
from supervisor.images.vm_json import VmJson
from supervisor.models import HypervisorName
from supervisor.models.base import MIB

PAGEWALKER: Final = "pagewalker"


def directory() -> Path:
    """Return where its kernel is."""
    return kernel_path().parent


def configuration() -> VmJson:
    """Return what its vm.json would say."""
    return VmJson.model_validate({"boot-source": {"kernel_image_path": kernel_path().name, "boot_args": ""}})


def announces_ready(image_name: str) -> bool:
    """Return whether the image's guest prints `ready` when it has booted."""
    return image_name == PAGEWALKER


def check_hypervisor(image_name: str, hypervisor: HypervisorName) -> None:
    """Raises InvalidImageError where this hypervisor cannot run the image."""
    if hypervisor == "embedded" and image_name != PAGEWALKER:
        raise InvalidImageError(
            f"image {image_name} needs firecracker: the embedded VMM's CPU is simulated and runs {PAGEWALKER} only"
        )
    if hypervisor == "firecracker" and image_name == PAGEWALKER and platform.machine() != "x86_64":
        raise InvalidImageError(
            f"image {PAGEWALKER} is an x86_64 guest, and this is {platform.machine()}: choose the hypervisor embedded"
        )


def check_boot_args(image_name: str, boot_args: str, memory_mib: int) -> None:
    """Raises BadRequestError where the guest is pagewalker and would refuse this command line in so much memory."""
    if image_name != PAGEWALKER:
        return
    try:
        parse_command_line(boot_args, memory_mib * MIB)
    except CommandLineError as error:
        raise BadRequestError(f"image {PAGEWALKER} cannot run in {memory_mib} MiB: {error}") from error
