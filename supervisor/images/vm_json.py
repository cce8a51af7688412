"""An image's vm.json: Firecracker's --config-file format, as far as the supervisor reads it. Pure.

Keys that only Firecracker reads pass through as they are.
"""

import codecs
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from supervisor.models import explain, quoted
from supervisor.models.base import MAX_VCPUS
from supervisor.models.readiness import ReadinessText
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, SMALL_PAGE_BYTES
from supervisor.vmm.configuration import SECTIONS

OWN_SECTION: Final = "forktui"
"""What is said to the supervisor alone; Firecracker passes over a section that it does not know."""
IGNORED_SECTIONS: Final = ("logger", "metrics")
"""The supervisor says itself where the VMM writes."""
MOST_MIB: Final = 1 << 27
"""A VMM maps all guest memory in its own address space, of 47 bits (Documentation/arch/x86/x86_64/mm.rst)."""


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in path:
        raise ValueError("it has to be a path inside the image's directory, without / at its start and without ..")
    return path


def _of_file(path: str) -> str:
    if path.rpartition("/")[2] in ("", "."):
        raise ValueError("it has to be the path of a file, and this is one of a directory")
    return path


RelativePath = Annotated[str, AfterValidator(_inside), AfterValidator(_of_file)]
DeviceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=64)]


class Section(BaseModel):
    """The base of a section: keys that are not named here are kept."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class BootSource(Section):
    """What is booted; `boot_args` is the kernel command line."""

    kernel_image_path: RelativePath
    initrd_path: RelativePath | None = None
    boot_args: str | None = None


class MachineConfig(Section):
    """The size of the machine."""

    vcpu_count: int = Field(default=1, ge=1, le=MAX_VCPUS)
    mem_size_mib: int = Field(default=128, ge=1, le=MOST_MIB)
    huge_pages: Literal["None", "Transparent", "2M"] = "None"

    @property
    def page_size(self) -> int:
        """Bytes of the pages that guest memory is mapped in: 4096, or 2 MiB; transparent ones do not go with uffd."""
        return HUGE_PAGE_BYTES if self.huge_pages == "2M" else SMALL_PAGE_BYTES


class Drive(Section):
    """A disk: a file, or the `socket` of a vhost-user device on the host."""

    drive_id: DeviceId
    is_root_device: bool
    is_read_only: bool | None = None
    path_on_host: RelativePath | None = None
    socket: str | None = None

    @model_validator(mode="after")
    def _check_backend(self) -> "Drive":
        if (self.path_on_host is None) == (self.socket is None):
            raise ValueError("a drive has either path_on_host or socket")
        return self


class Pmem(Section):
    """A disk as persistent memory."""

    id: DeviceId
    path_on_host: RelativePath
    read_only: bool = False


class Vsock(Section):
    """A socket device."""

    uds_path: RelativePath


class MemoryHotplug(Section):
    """Memory that a guest may be given while it runs."""

    total_size_mib: int = Field(default=0, ge=0, le=MOST_MIB)


class Own(Section):
    """What an image says to the supervisor."""

    model_config = ConfigDict(extra="forbid")

    readiness: ReadinessText | None = None
    """What a guest of it is ready by when it has booted."""
    metadata_drive: DeviceId | None = None
    """The drive on which the supervisor writes who an instance is."""


class VmJson(Section):
    """The whole file."""

    boot_source: BootSource = Field(alias="boot-source")
    machine_config: MachineConfig = Field(default=MachineConfig(), alias="machine-config")
    drives: tuple[Drive, ...] = ()
    pmem: tuple[Pmem, ...] = ()
    vsock: Vsock | None = None
    cpu_config: RelativePath | dict[str, Any] | None = Field(default=None, alias="cpu-config")
    memory_hotplug: MemoryHotplug | None = Field(default=None, alias="memory-hotplug")
    own: Own = Field(default=Own(), alias=OWN_SECTION)

    @model_validator(mode="after")
    def _check_sections(self) -> "VmJson":
        unknown = sorted(set(self.model_extra or ()) - set(SECTIONS) - {*IGNORED_SECTIONS, OWN_SECTION})
        if unknown:
            raise ValueError(f"{quoted(unknown[0])} is none of Firecracker's sections: {', '.join(sorted(SECTIONS))}")
        return self

    @model_validator(mode="after")
    def _check_metadata_drive(self) -> "VmJson":
        name = self.own.metadata_drive
        if name is not None and self.metadata_drive is None:
            raise ValueError(f"{OWN_SECTION}.metadata_drive: {name} has to be a drive with a path, and is_read_only")
        return self

    @property
    def metadata_drive(self) -> Drive | None:
        """The drive that is named as the one on which an instance's guest reads who it is."""
        named = self.own.metadata_drive
        found = (one for one in self.drives if one.drive_id == named and one.is_read_only and one.path_on_host)
        return next(found, None)


def parse_vm_json(text: bytes) -> VmJson:
    """Return the file's content; raises ValueError with one line: which key, and what is wrong."""
    try:
        return VmJson.model_validate_json(text.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise ValueError(explain(error.errors()[0])) from None
