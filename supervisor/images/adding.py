"""An image of a directory that is ready, as a tar of it: a vm.json and what it names, or a snapshot.

Every function blocks on the disk.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Final

from supervisor.concurrency.progress import counted
from supervisor.errors import InvalidImageError
from supervisor.images.ext4 import Source
from supervisor.images.root_disk import TarError, members
from supervisor.system.regular_files import make_directories, new_file

MOST_FILES: Final = 1000
"""An image has a handful."""
_HOLE: Final = 64 << 10


def unpack(name: str, tar: Path, directory: Path) -> None:
    """Put what a tar has into an empty directory: files and directories, and nothing that leads out of it.

    Of its zeros holes are made. Raises InvalidImageError and OSError; the tar's bytes count as done as they are read.
    """
    try:
        with counted(tar.stat().st_size, "bytes"), tar.open("rb") as given:
            for number, (member, data) in enumerate(members(given)):
                if number >= MOST_FILES:
                    raise TarError(f"it has more than {MOST_FILES} files")
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\0" in member.name:
                    raise TarError(f"{member.name!r} leads out of the image's directory")
                if member.isdir():
                    make_directories(directory, path)
                elif member.isreg() and path.parts:
                    make_directories(directory, path.parent)
                    _write(directory / path, data, member.size)
                else:
                    raise TarError(f"{member.name!r} is no file and no directory")
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidImageError(f"image {name}: it has a file twice, or one in the place of a directory") from error
    except TarError as error:
        raise InvalidImageError(f"image {name}: {error}") from error


def _write(path: Path, data: Source, size: int) -> None:
    with new_file(path) as file:
        for start in range(0, size, _HOLE):
            piece = data.read(min(_HOLE, size - start))
            if piece.count(0) != len(piece):
                file.seek(start)
                file.write(piece)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
