"""What makes images, and what is told of one that was made."""

from typing import Annotated, Literal

from pydantic import Field

from supervisor.models.base import MAX_VCPUS, Level, Request, Wire

ImageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class BuildImageRequest(Request):
    """The part `request` of `POST /images`; the files are parts of their own."""

    name: ImageName
    size: str | None = None
    """Of the root disk; without it as large as what is in it, and larger where its guest may write to it."""
    memory: str = "256MB"
    vcpus: int = Field(default=1, ge=1, le=MAX_VCPUS)
    writable: bool = False
    """Whether each fork has a copy of the root disk; else all share it, under an overlay."""
    scratch: str | None = None
    """The size of a disk of each fork's own for what its guest writes over the shared root; without it, its memory."""
    init: Annotated[str, Field(pattern=r"^/[\x21-\x7e]{1,254}$")] | None = None
    """The program that the guest runs first, in place of the first there is of /sbin/init and others."""
    boot_args: Annotated[str, Field(pattern=r"^[\x20-\x7e]*$", max_length=1024)] = ""
    """Words behind those that the kernel is given."""


class BootWord(Wire):
    """A word of a kernel command line, and why it is there."""

    word: str
    why: str


class KernelFinding(Wire):
    """What a kernel has of an option that a guest or its forks need."""

    option: str
    """Without its `CONFIG_`."""
    status: Literal["built in", "module", "not found", "missing"]
    level: Level
    """`alarm`: it does not boot so."""
    meaning: str = ""


class MadeImage(Wire):
    """What `POST /images` has made."""

    name: str
    kernel: str = ""
    """What it was taken out of."""
    root_bytes: int | None = None
    """Of the root disk, and `root_disk_bytes` what it takes on the host's."""
    root_disk_bytes: int | None = None
    entries: int = 0
    """Files of all kinds in the root."""
    modules: tuple[str, ...] = ()
    boot_words: tuple[BootWord, ...] = ()
    findings: tuple[KernelFinding, ...] = ()
    notes: tuple[str, ...] = ()
    """What else is to be known of it, a line each."""
