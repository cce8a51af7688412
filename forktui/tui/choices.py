"""What the user has chosen in the dashboard, kept from one run to the next.

It is a file of state, not of configuration: the dashboard writes it, nobody has to. Whatever is wrong with it, or with
the directory that it is in, costs what was chosen and nothing else.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from supervisor.settings import default_state_dir
from supervisor.system.regular_files import read_regular
from supervisor.system.trusted_paths import distrusted

FILE_NAME: Final = "dashboard.json"
_MOST_BYTES: Final = 64 << 10


class Choices(BaseModel):
    """A field for each choice, whose default is that nothing was chosen; what a later version adds is kept too."""

    model_config = ConfigDict(frozen=True, extra="allow")

    theme: str = ""
    columns: Mapping[str, Literal["always", "never"]] = {}
    """What is said of columns of the fork tree, by their words, which may be a later version's."""


class KeptChoices:
    """The choices in a directory; where that is None they last as long as the program."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.now = self._read()

    def keep(self, **chosen: Any) -> str | None:
        """Take choices over, and write them; return in one line why they are not kept, None where they are."""
        self.now = self.now.model_copy(update=chosen)
        if self._folder is None:
            return None
        try:
            if (found := untrusted(self._folder)) is not None:
                return f"it is not kept: {found}"
            # Another dashboard may have written meanwhile.
            text = self._read().model_copy(update=chosen).model_dump_json(exclude_defaults=True)
            write_whole(self._folder / FILE_NAME, text)
        except OSError as error:
            return f"it is not kept: {self._folder}: {error.strerror}"
        return None

    def _read(self) -> Choices:
        if self._folder is None:
            return Choices()
        try:
            if untrusted(self._folder) is not None:
                return Choices()
            return _understood(read_regular(self._folder / FILE_NAME, _MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return Choices()


def kept_choices() -> KeptChoices:
    """The choices of this process's user."""
    return KeptChoices(default_state_dir())


def untrusted(folder: Path) -> str | None:
    """Why nothing is kept in a directory: it is, or leads through, another user's, such as his who has called sudo."""
    found = distrusted(folder, (os.geteuid(),))
    return None if found is None else found.reason


def write_whole(file: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all; raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    written = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        written.replace(file)
    except BaseException:
        with suppress(OSError):
            written.unlink()
        raise


def _understood(content: bytes) -> Choices:
    """Return the choices, but for those that cannot be what they are; raises ValueError where it is no JSON object."""
    fields = json.loads(content)
    try:
        return Choices.model_validate(fields)
    except ValidationError as error:
        wrong = {found["loc"][0] for found in error.errors() if found["loc"]}
        if not wrong:
            raise
        return Choices.model_validate({name: value for name, value in fields.items() if name not in wrong})
