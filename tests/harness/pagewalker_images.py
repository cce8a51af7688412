"""Images whose kernel is pagewalker, with devices that it takes no notice of."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from supervisor.guests.boot import kernel_path

WALKS_ON = "passes=0 hot_mib=2"
"""The words of one that walks its memory for ever."""


def write_image(
    directory: Path, sections: Mapping[str, object] = MappingProxyType({}), boot_args: str = WALKS_ON
) -> Path:
    """Make a directory with a kernel and a vm.json of these sections, and return it."""
    directory.mkdir(parents=True)
    shutil.copy(kernel_path(), directory / "kernel")
    boot_source = {"kernel_image_path": "kernel", "boot_args": boot_args}
    (directory / "vm.json").write_text(json.dumps({"boot-source": boot_source, **sections}))
    return directory
