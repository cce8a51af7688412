"""What a VMM needs to boot pagewalker: the ELF's path and the kernel command line; standard library only."""

from importlib.resources import files
from pathlib import Path

from supervisor.errors import BadRequestError, InvalidSizeError
from supervisor.guests.pagewalker import (
    DEFAULT_BALLAST_MIB,
    DEFAULT_HOT_MIB,
    DEFAULT_PASSES,
    DEFAULT_SEED,
    DEFAULT_UPPER_MIB,
    MAX_HOT_MIB,
    MAX_UPPER_MIB,
    WORD_MASK,
)


def kernel_path() -> Path:
    """Return the path of pagewalker.elf, for `kernel_image_path` of Firecracker's boot-source."""
    return Path(str(files(__package__) / "pagewalker.elf"))


def first_init_path() -> Path:
    """Return the path of first_init.elf, which a Linux guest of `image build` runs first."""
    return Path(str(files(__package__) / "first_init.elf"))


def boot_args(
    hot_mib: int = DEFAULT_HOT_MIB,
    passes: int = DEFAULT_PASSES,
    seed: int = DEFAULT_SEED,
    ballast_mib: int = DEFAULT_BALLAST_MIB,
    upper_mib: int = DEFAULT_UPPER_MIB,
) -> str:
    """Return pagewalker's kernel command line for a hot set of `hot_mib` MiB and `passes` passes, 0 for endless ones.

    `ballast_mib` MiB are there for a balloon to take, `upper_mib` MiB are walked above 4 GiB. Raises InvalidSizeError
    where the hot set is empty or above MAX_HOT_MIB, alone or with the ballast, or the upper set above MAX_UPPER_MIB,
    and BadRequestError where another number does not fit in 64 bits.
    """
    if not 1 <= hot_mib <= MAX_HOT_MIB:
        raise InvalidSizeError(f"pagewalker cannot walk hot_mib={hot_mib}: it has to be 1 to {MAX_HOT_MIB}")
    if not 0 <= ballast_mib <= MAX_HOT_MIB - hot_mib:
        raise InvalidSizeError(
            f"pagewalker cannot keep ballast_mib={ballast_mib} beside hot_mib={hot_mib}: "
            f"it has to be 0 to {MAX_HOT_MIB - hot_mib}"
        )
    if not 0 <= upper_mib <= MAX_UPPER_MIB:
        raise InvalidSizeError(f"pagewalker cannot walk upper_mib={upper_mib}: it has to be 0 to {MAX_UPPER_MIB}")
    for name, value in (("passes", passes), ("seed", seed)):
        if not 0 <= value <= WORD_MASK:
            raise BadRequestError(f"pagewalker cannot take {name}={value}: it has to be 0 to {WORD_MASK}")
    return f"hot_mib={hot_mib} passes={passes} seed={seed} ballast_mib={ballast_mib} upper_mib={upper_mib}"
