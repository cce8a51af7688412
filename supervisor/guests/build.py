"""How pagewalker.elf and first_init.elf are made from their sources and what those include.

`python -m supervisor.guests.build` makes the shipped ones anew.
"""

import subprocess
from pathlib import Path
from typing import Final

from supervisor.errors import DependencyMissingError
from supervisor.guests.boot import first_init_path, kernel_path

GCC: Final = ("gcc", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none")


def build(elf: Path, source: str = "pagewalker.s") -> None:
    """Assemble and link a source into the file `elf`, the same bytes each time.

    Raises DependencyMissingError where gcc and binutils for x86-64 are missing or fail.
    """
    # `.include` is looked for in the working directory.
    command = (*GCC, "-T", "pagewalker.ld", "-o", str(elf.absolute()), source)
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError as error:
        raise DependencyMissingError(
            f"{source} cannot be built: gcc is not in PATH; install gcc and binutils"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[0]
        raise DependencyMissingError(f"{source} cannot be built: gcc for x86-64 says {reason}") from error
    elf.chmod(0o644)


if __name__ == "__main__":
    build(kernel_path())
    build(first_init_path(), "first_init.s")
