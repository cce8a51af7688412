"""Page servers of earlier versions, which run on: what is done for them otherwise."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from supervisor.errors import PageServerError


@contextlib.contextmanager
def rebound(path: Path) -> Iterator[None]:
    """Have no socket at a path, for a page server to bind one within the context; its file is as it was then.

    Raises PageServerError.
    """
    try:
        status = path.lstat()
        path.unlink()
        yield
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
        path.chmod(stat.S_IMODE(status.st_mode))
    except OSError as error:
        raise PageServerError(f"no VMM can connect at {path}: {error.strerror}") from error
