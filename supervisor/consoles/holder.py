"""The console holder: a process that copies what VMMs and page servers write to bounded files, for one data directory.

`python -m supervisor.consoles.holder DATA_DIRECTORY CONTROL_SOCKET`, with a connection to the supervisor as standard
input: what is said there before it runs is heard. It has no state but the pipes that it is handed. It outlives its
supervisor, and ends when it has no pipe and no supervisor is connected. Typing into a guest is to be done by it, too.
"""

import contextlib
import os
import socket
import stat
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from supervisor.consoles.bounded_file import BoundedFile
from supervisor.consoles.stream import PipeId, Stream, pipe_id
from supervisor.system.control_lines import encode
from supervisor.system.control_socket import ControlSocket, Reply
from supervisor.system.descriptors import raise_limit
from supervisor.system.loop import Loop, Timer
from supervisor.system.unix_sockets import listen

TELL_SECONDS = 1.0
"""Between two words on what of a log is dropped."""

Waiting = tuple[frozenset[Path], Reply]
"""Who is to be told once nothing more comes for these logs."""


class Holder:
    """The pipes of one data directory."""

    def __init__(self, loop: Loop, control: Path, supervisor: socket.socket) -> None:
        self._loop = loop
        self._streams: dict[PipeId, Stream] = {}
        self._files: dict[Path, BoundedFile] = {}
        self._told: set[Path] = set()
        """Of which it was told that bytes are dropped."""
        self._drained: list[Waiting] = []
        self._verbs: dict[str, Callable[[dict[str, Any], Reply], None]] = {
            "hold": self._hold,
            "drained": self._when_drained,
            "put_back": self._put_back,
            "leave": self._leave,
            "ping": lambda request, reply: reply({"result": None}),
        }
        self._control = ControlSocket(loop, control, self._on_request, listen, self._end_where_idle)
        self._control.serve(supervisor)
        self._telling: Timer | None = None
        with contextlib.suppress(OSError):
            # Without it the next supervisor starts another one; what is in its place is told by `put_back`.
            self._control.put_back()

    def fail(self, reason: str) -> None:
        """Tell why it ends."""
        self._control.broadcast(encode({"event": "Failed", "reason": reason}))

    def close(self) -> None:
        """Hang up, and remove the socket; the pipes go on in those that write to them."""
        self._control.close()

    def _on_request(self, request: dict[str, Any], reply: Reply) -> None:
        name = str(request.get("verb"))
        try:
            self._verbs[name](request, reply)
        except KeyError as error:
            reply({"error": f"{name!r} is no verb of a console holder, or lacks {error}"})
        except (TypeError, ValueError) as error:
            reply({"error": f"the {name} request is malformed: {error!r}"})
        except OSError as error:
            reply({"error": f"the {name} request failed: {error.strerror}"})

    def _hold(self, request: dict[str, Any], reply: Reply) -> None:
        """Copy a pipe to a file from now on; one that is held already is held once, the bound is that said last."""
        path, most_bytes = Path(request["path"]), int(request["most_bytes"])
        given = next(iter(request["descriptors"]), None)
        if given is None or not stat.S_ISFIFO(os.fstat(given).st_mode):
            raise ValueError("no pipe came with it")
        file = self._files.get(path) or BoundedFile(path, most_bytes)
        file.most_bytes = most_bytes
        if pipe_id(given) not in self._streams:
            descriptor = os.dup(given)
            try:
                stream = Stream(self._loop, descriptor, file, self._on_written, self._on_end)
            except OSError:
                os.close(descriptor)
                raise
            self._streams[stream.pipe] = stream
            self._files[path] = file
        reply({"result": None})

    def _on_end(self, stream: Stream) -> None:
        del self._streams[stream.pipe]
        if all(one.file is not stream.file for one in self._streams.values()):
            self._tell_of(stream.file)
            self._told.discard(stream.file.path)
            del self._files[stream.file.path]
        for waiting in tuple(self._drained):
            paths, reply = waiting
            if paths.isdisjoint(self._files):
                self._drained.remove(waiting)
                reply({"result": None})
        self._end_where_idle()

    def _when_drained(self, request: dict[str, Any], reply: Reply) -> None:
        """Answer once all is in these files that their pipes had when the last writer ended, within `most_seconds`.

        What a VMM has started may have its pipes for as long as it runs.
        """
        paths, seconds = frozenset(map(Path, request["paths"])), float(request["most_seconds"])
        if paths.isdisjoint(self._files):
            reply({"result": None})
        else:
            waiting = (paths, reply)
            self._drained.append(waiting)
            self._loop.call_later(seconds, partial(self._forget, waiting))

    def _forget(self, waiting: Waiting) -> None:
        with contextlib.suppress(ValueError):
            self._drained.remove(waiting)

    def _put_back(self, request: dict[str, Any], reply: Reply) -> None:
        reply({"result": self._control.put_back()})

    def _leave(self, request: dict[str, Any], reply: Reply) -> None:
        """End where there is nothing to hold; answers how many pipes there are."""
        reply({"result": len(self._streams)})
        if not self._streams:
            self._loop.stop()

    def _end_where_idle(self) -> None:
        if not self._streams and not self._control.connected:
            self._loop.stop()

    def _on_written(self, file: BoundedFile) -> None:
        if self._telling is None and (file.dropped or file.path in self._told):
            self._telling = self._loop.call_later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        """Say of each file of which bytes are dropped how many, and of each that is written again that it is."""
        self._telling = None
        for file in tuple(self._files.values()):
            self._tell_of(file)

    def _tell_of(self, file: BoundedFile) -> None:
        if file.dropped or file.path in self._told:
            fields = {"path": str(file.path), "bytes": file.dropped, "reason": file.reason}
            self._control.broadcast(encode({"event": "Dropped", **fields}))
            (self._told.add if file.dropped else self._told.discard)(file.path)


def main() -> int:
    """Hold pipes until there is no use of it."""
    os.umask(0o027)
    loop = Loop()
    holder = Holder(loop, Path(sys.argv[2]), socket.socket(fileno=os.dup(0)))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    raise_limit()
    try:
        loop.run()
    except Exception:
        holder.fail(traceback.format_exc())
        raise
    finally:
        holder.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
