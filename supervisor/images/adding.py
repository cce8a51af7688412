"""An image of a directory that is ready, as a tar of it: a vm.json and what it names, or a snapshot.

Every function blocks on the disk.
"""

import errno
import os
from pathlib import Path, PurePosixPath
from typing import Final

from supervisor.concurrency.progress import counted
from supervisor.errors import InvalidImageError
from supervisor.images.disk_room import Room
from supervisor.images.ext4 import LONGEST_PATH, Source
from supervisor.images.root_disk import TarError, members, path_of
from supervisor.system.regular_files import make_directories, new_file, shown

MOST_FILES: Final = 1000
"""An image has a handful."""
MOST_ABOVE: Final = 16
"""Directories that one lies in, each of which takes a block."""
_HOLE: Final = 64 << 10
_NO_NAMES: Final = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


def unpack(name: str, tar: Path, directory: Path, room: Room) -> None:
    """Put what a tar has into an empty directory: files and directories, and nothing that leads out of it.

    Of its zeros holes are made, and all else is taken of `room`. Raises InvalidImageError, OSError, and
    InsufficientResourcesError; the tar's bytes count as done as they are read.
    """
    try:
        with counted(tar.stat().st_size, "bytes"), tar.open("rb") as given:
            for number, (member, data) in enumerate(members(given)):
                if number >= MOST_FILES:
                    raise TarError(f"it has more than {MOST_FILES} files")
                if len(path_of(member.name)) > LONGEST_PATH:
                    raise TarError(f"{member.name[:64]!r}... is a path of more than {LONGEST_PATH} bytes")
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or "\0" in member.name:
                    raise TarError(f"{member.name!r} leads out of the image's directory")
                if len(path.parts) > MOST_ABOVE:
                    raise TarError(f"{member.name!r} lies in more than {MOST_ABOVE} directories")
                if member.isdir():
                    make_directories(directory, path)
                elif member.isreg() and path.parts:
                    make_directories(directory, path.parent)
                    _write(directory / path, data, member.size, room)
                else:
                    raise TarError(f"{member.name!r} is no file and no directory")
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidImageError(f"image {name}: it has a file twice, or one in the place of a directory") from error
    except OSError as error:
        if error.errno not in _NO_NAMES:
            raise
        raise InvalidImageError(f"image {name}: {error.strerror}: {shown(error.filename or '')}") from error
    except TarError as error:
        raise InvalidImageError(f"image {name}: {error}") from error


def _write(path: Path, data: Source, size: int, room: Room) -> None:
    with new_file(path) as file:
        for start in range(0, size, _HOLE):
            piece = data.read(min(_HOLE, size - start))
            if len(piece) != min(_HOLE, size - start):
                raise TarError(f"{path.name!r} ends before its size")
            if piece.count(0) != len(piece):
                room.take(len(piece))
                file.seek(start)
                file.write(piece)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
