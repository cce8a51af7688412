"""What every benchmark is run with: where, how often, how large, and on which VMM."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measurement import Skipped
from supervisor.vmm.hypervisor import Hypervisor

MIB: Final = 1 << 20
PATIENCE: Final = 120.0
"""Seconds for anything that is waited for: a machine that is only slow gets there, one that hangs is told of."""
SOURCES: Final = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    memory_mib: int = 128
    hot_mib: int = 16
    touched_pages: int = 4096
    """In `faults`: by demand faults, one after the other, or by a prefetch."""
    storms: tuple[int, ...] = (1, 8, 32)
    """Forks at once in `storm`."""
    storm_pages: int = 2048
    """That each of them touches."""
    storm_mib: int = 64
    """That each fork in `takeover` walks."""
    burst: int = 50
    """Forks that `forks` makes in one fan-out."""
    family: int = 8
    """Forks alive at once in `memory` and `takeover`."""
    image_mib: int = 4096
    extents: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Of the images in `image`."""
    disks_mib: tuple[int, int] = (1024, 4096)
    """Of the disks in `disks`."""
    forks: int = 1_000
    """Whose statistics are read in `statistics`."""
    crowds: tuple[int, int] = (10, 1000)
    """Forks alive at once in `thousand`: few, and many."""
    idle_seconds: float = 20.0
    """For which the supervisor of a crowd is left alone."""
    socket_crowds: tuple[int, int, int, int] = (50, 10_000, 500, 1_000)
    """In `crowds`: readers that do not read, events, slow and idle connections."""
    watched: tuple[int, int] = (10_000, 1_000)
    """Instances that `dashboard` shows: many, and few."""
    watched_rate: int = 1_000
    """Events a second of the many."""
    watched_seconds: float = 6.0
    """For which the program's CPU time is taken and its bytes are counted."""
    keys: int = 40
    """That are pressed in a sample."""
    requests: int = 200
    """That are made at least beside each of these."""
    flood_seconds: float = 60.0
    """For which a guest prints in `flood`, in all rounds together."""


QUICK: Final = Sizes(
    memory_mib=64,
    hot_mib=1,
    touched_pages=256,
    storms=(1, 3),
    storm_pages=128,
    burst=3,
    family=2,
    storm_mib=32,
    image_mib=64,
    extents=(100, 1_000),
    disks_mib=(1, 4),
    forks=20,
    crowds=(2, 4),
    idle_seconds=0.5,
    socket_crowds=(3, 100, 10, 20),
    watched=(40, 30),
    watched_rate=40,
    watched_seconds=0.3,
    keys=3,
    requests=5,
    flood_seconds=0.2,
)
"""Everything runs and nothing is measured."""


@dataclass(frozen=True)
class Bench:
    """One run."""

    folder: Path
    """A directory of its own with a path that leaves room for sockets; it goes with the run."""
    rounds: int
    sizes: Sizes
    firecracker: Hypervisor | str
    """Or why it cannot run here."""
    embedded: Hypervisor

    def real_firecracker(self) -> Hypervisor:
        """Return Firecracker; Skipped where it cannot run here."""
        if isinstance(self.firecracker, str):
            raise Skipped(self.firecracker)
        return self.firecracker

    def any_hypervisor(self) -> Hypervisor:
        """Return Firecracker, or the embedded VMM where it cannot run."""
        return self.embedded if isinstance(self.firecracker, str) else self.firecracker

    def directory(self, name: str) -> Path:
        """Return a new, empty directory."""
        path = self.folder / name
        path.mkdir()
        return path

    def compiled(self, source: str) -> Path:
        """Return the program that `cc -O2` makes of a C file beside this one; Skipped where there is no cc."""
        program = self.folder / source.removesuffix(".c")
        if program.exists():
            return program
        compiler = shutil.which("cc")
        if compiler is None:
            raise Skipped(f"there is no C compiler to make {source} with: install gcc")
        command = (compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCES / source))
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode != 0:
            raise Skipped(f"{compiler} cannot make {source}: {(ran.stderr.strip().splitlines() or ['no reason'])[0]}")
        return program
