"""The one process of the nested host that runs jobs: it is told which by a port of virtio's, and answers there."""

import contextlib
import importlib
import json
import os
import traceback
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final

from tests.linux.inside.host import Host

PORTS: Final = Path("/sys/class/virtio-ports")
NAME: Final = "jobs"


def main() -> None:
    """Run what is asked for, one job after another."""
    with _port() as port:
        host = Host(**{name: Path(place) for name, place in json.loads(port.readline()).items()})
        _answer(port, {})
        for line in port:
            asked = json.loads(line)
            _answer(port, _run(host, asked["job"], asked["arguments"]))


def _run(host: Host, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    stopped = None
    try:
        importlib.import_module(f"tests.linux.inside.jobs.{name}").run(host, **arguments)
    except Exception:
        stopped = traceback.format_exc()
    return {**host.report(), "stopped": stopped}


@contextlib.contextmanager
def _port() -> Iterator[FileIO]:
    (found,) = (port.name for port in PORTS.iterdir() if (port / "name").read_text().strip() == NAME)
    # A port is opened once, for both directions.
    with FileIO(os.open(f"/dev/{found}", os.O_RDWR), "r+") as port:
        yield port


def _answer(port: FileIO, value: dict[str, Any]) -> None:
    rest = memoryview(json.dumps(value).encode() + b"\n")
    while rest:
        rest = rest[port.write(rest) or 0 :]


if __name__ == "__main__":
    main()
