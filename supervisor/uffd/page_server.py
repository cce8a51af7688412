"""The page server: a process that answers the page faults of all forks of one template.

`python -m supervisor.uffd.page_server CONFIGURATION`, with the JSON of a `control.Configuration`. It prints `ready`
on stdout when it listens, or `refused: <reason>`, and logs to stderr. What it works with is handed to it: as it starts,
on stdin (`inheritance.py`), and with its forks. It ends on SIGTERM or when it is told `stop`, and not when its
supervisor does. On SIGHUP it listens at its path again, where it may.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from supervisor.errors import PageServerError
from supervisor.system.control_socket import ControlSocket, Reply
from supervisor.system.descriptors import raise_limit
from supervisor.system.last_words import escape_tracebacks, print_error
from supervisor.system.log_text import one_line
from supervisor.system.loop import Loop
from supervisor.uffd.confinement import Confinement, Wanted, confine
from supervisor.uffd.control import (
    Attached,
    Configuration,
    PageServerEvent,
    Prefetch,
    Recorded,
    Sampled,
    Status,
    decode_configuration,
    encode_event,
)
from supervisor.uffd.handshake import PAGE_SIZES, Mapping, listen
from supervisor.uffd.hot_list import HotList
from supervisor.uffd.hot_pages import most_bytes
from supervisor.uffd.inheritance import STDIN, WAY_BACK, Inheritance, inherited
from supervisor.uffd.locks import Locks
from supervisor.uffd.memory_image import LayerIdentity, MemoryImage
from supervisor.uffd.page_map import file_bytes
from supervisor.uffd.sampling import Plan
from supervisor.uffd.session import Session
from supervisor.uffd.terms import LeftFork, NewFork, Terms


def log(text: str) -> None:
    """One line on stderr, which the supervisor has made the log file; one that cannot be written stops no guest."""
    print_error(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}")


class PageServer:
    """The image, the hot pages, and the forks of one template."""

    def __init__(self, loop: Loop, configuration: Configuration, given: Inheritance, confinement: Confinement) -> None:
        """Take everything and listen; PageServerError with the reason when something is not as it was configured."""
        if configuration.page_size not in PAGE_SIZES or configuration.memory_size % configuration.page_size:
            sizes = f"{configuration.memory_size} bytes in pages of {configuration.page_size}"
            raise PageServerError(f"a memory image of {sizes} cannot be served")
        self.loop = loop
        self.page_size = configuration.page_size
        self.policy = configuration.policy
        layers = [Path(layer) for layer in configuration.layers]
        self.image = MemoryImage(layers, configuration.memory_size, given.layers)
        self._template_id = configuration.template_id
        self._sessions: dict[str, Session] = {}
        self._confinement = confinement
        list_path = Path(configuration.hot_pages)
        # It works in its own directory, and may not come there by a path.
        self._hot = HotList(loop, Path(list_path.name), self.image, self.page_size, self.policy, log, list_path)
        for start, end in self._hot.runs:
            self.image.read_ahead(start * self.page_size, end * self.page_size)
        self._verbs: dict[str, Callable[[dict[str, Any], Reply], None]] = {
            "attach": self._attach,
            "adopt": self._adopt,
            "served": self._served,
            "populate": self._populate,
            "stop_populating": self._stop_populating,
            "release": self._release,
            "listen": self._listen,
            "maps": self._maps,
            "move_map": self._move_map,
            "status": self._status,
            "ping": self._ping,
            "stop": self._stop,
        }
        self._locks = Locks()
        self._locks.keep(given.lock)
        self._control = ControlSocket(loop, Path(configuration.control), self._on_request, listen)
        self._control.listen_by(socket.socket(fileno=given.control))
        self._control.serve(socket.socket(fileno=STDIN), quiet=True)

    def announce(self, event: PageServerEvent) -> None:
        """Tell every supervisor that is connected, and the log."""
        log(" ".join([type(event).__name__, *(f"{name}={value}" for name, value in event._asdict().items())]))
        self._control.broadcast(encode_event(event))

    def keep_recording(self, fork_id: str, touched: list[int]) -> None:
        """Add the recording to the hot-page list, in memory and on disk."""
        self._hot.keep_recording(touched, partial(self._announce_list, fork_id))

    def keep_sample(self, held_back: int, touched: int) -> None:
        """Add to what is known of the list's worth, in memory and on disk."""
        self._hot.keep_sample(held_back, touched)
        self.announce(Sampled(self._hot.recorded.held_back, self._hot.recorded.touched))

    def plan(self, fork_id: str, mappings: Sequence[Mapping]) -> Plan:
        """What is to be prefetched into a new fork."""
        return self._hot.plan(fork_id, mappings, partial(self._announce_list, fork_id))

    def _announce_list(self, fork_id: str) -> None:
        hot, pages = self._hot, self._hot.page_count
        length = pages * self.page_size
        self.announce(Recorded(fork_id, pages, len(hot.runs), length, hot.recorded.recordings))

    def put_back(self) -> None:
        """Listen at its path again, where somebody has removed its socket, for a supervisor that has no connection."""
        try:
            done = self._control.put_back()
        except PageServerError as error:
            log(f"not put back: its control socket: {error.message}")
        else:
            log(f"put back: its control socket: {done}")

    def close(self) -> None:
        """End every session, and keep what was recorded."""
        for session in self._sessions.values():
            session.end("its page server was stopped", announce=False)
        self._hot.finish()
        self._control.close()
        self._locks.close()
        self.image.close()

    def _on_request(self, request: dict[str, Any], reply: Reply) -> None:
        name = str(request.get("verb"))
        verb = self._verbs.get(name)
        try:
            if verb is None:
                raise PageServerError(f"{name!r} is no verb of a page server")
            verb(request, reply)
        except PageServerError as error:
            reply({"error": error.message})
        except (KeyError, TypeError, ValueError) as error:
            reply({"error": f"the {name} request is malformed: {error!r}"})
        except OSError as error:
            # Descriptors or memory are short: of this fork, and no reason to leave the others.
            reply({"error": f"the {name} request failed: {error.strerror}"})

    def _attach(self, request: dict[str, Any], reply: Reply) -> None:
        fork_id, given = self._unserved(request), _given(request)
        self.image.verify(_named(request))
        if request["prefetch"] not in get_args(Prefetch):
            raise PageServerError(f"prefetch {request['prefetch']!r} is none of {', '.join(get_args(Prefetch))}")
        terms = Terms(
            fork_id=fork_id,
            page_map=Path(request["page_map"]),
            vmm_pid=int(request["vmm_pid"]),
            prefetch=request["prefetch"],
            record=bool(request["record"]),
        )
        new_fork = NewFork(given["listener"], given["vmm"], given["new_map"])
        self._sessions[fork_id] = Session.attach(self, terms, new_fork)
        self._locks.keep(given["lock"])
        reply({"result": None})

    def _adopt(self, request: dict[str, Any], reply: Reply) -> None:
        """Take over a fork from a page server that died; tells whether its page map is made anew."""
        fork_id, given = self._unserved(request), _given(request)
        self.image.verify(_named(request))
        page_map, nothing_removed = Path(request["page_map"]), bool(request.get("nothing_removed", False))
        terms = Terms(fork_id, page_map, int(request["vmm_pid"]), "off", False, nothing_removed)
        left = LeftFork(
            uffd=given["uffd"],
            vmm=given["vmm"],
            pagemap=given["pagemap"],
            smaps=given["smaps"],
            new_map=given["new_map"],
            left_map=given.get("left_map"),
        )
        self._sessions[fork_id], anew = Session.adopt(self, terms, left)
        self._locks.keep(given["lock"])
        reply({"result": anew})

    def _unserved(self, request: dict[str, Any]) -> str:
        """The fork of the request, which nobody is served as: one that ended may not have been released.

        A supervisor that was killed between the two is not to be in the way of its successor.
        """
        fork_id = str(request["fork_id"])
        session = self._sessions.get(fork_id)
        if session is not None and session.ended is None:
            raise PageServerError(f"fork {fork_id} is attached already: release it first")
        return fork_id

    def _served(self, request: dict[str, Any], reply: Reply) -> None:
        fork_id = str(request["fork_id"])
        session = self._sessions.get(fork_id)
        if session is None:
            raise PageServerError(f"fork {fork_id} is not attached")

        def tell(answer: Attached | str) -> None:
            if isinstance(answer, Attached):
                reply({"result": answer._asdict()})
            else:
                reply({"error": f"fork {fork_id} is not served: {answer}"})

        session.when_served(tell)

    def _populate(self, request: dict[str, Any], reply: Reply) -> None:
        fork_id = str(request["fork_id"])
        session = self._sessions.get(fork_id)
        if session is None:
            raise PageServerError(f"fork {fork_id} is not attached")
        self.image.verify(_named(request))
        session.populate(lambda reason: reply({"error": f"fork {fork_id}: {reason}"} if reason else {"result": None}))

    def _stop_populating(self, request: dict[str, Any], reply: Reply) -> None:
        session = self._sessions.get(str(request["fork_id"]))
        if session is not None:
            session.stop_populating()
        reply({"result": None})

    def _release(self, request: dict[str, Any], reply: Reply) -> None:
        session = self._sessions.pop(str(request["fork_id"]), None)
        if session is not None:
            session.end("it was released", announce=False)
        reply({"result": None})

    def _listen(self, request: dict[str, Any], reply: Reply) -> None:
        """Listen for supervisors by another socket, whose file is where that of the one before was."""
        given = _given(request)
        self._control.listen_by(socket.socket(fileno=os.dup(given["control"])))
        self._locks.keep(given["lock"])
        reply({"result": None})

    def _maps(self, request: dict[str, Any], reply: Reply) -> None:
        sessions = [session for session in self._sessions.values() if session.ended is None]
        reply({"result": [session.map_file._asdict() for session in sessions]})

    def _move_map(self, request: dict[str, Any], reply: Reply) -> None:
        """Go on with a fork's page map in another file, where somebody has removed the one that it is in."""
        given, session = _given(request), self._sessions.get(str(request["fork_id"]))
        if session is None or session.ended is not None:
            raise PageServerError("it is not attached")
        try:
            session.move_map(given["new_map"])
        except OSError as error:
            raise PageServerError(error.strerror or str(error)) from error
        self._locks.keep(given["lock"])
        reply({"result": None})

    def _status(self, request: dict[str, Any], reply: Reply) -> None:
        serving = [(fork_id, session) for fork_id, session in self._sessions.items() if session.ended is None]
        status = Status(
            template_id=self._template_id,
            pid=os.getpid(),
            forks=tuple(fork_id for fork_id, _ in serving),
            recording=tuple(fork_id for fork_id, session in serving if session.recording),
            page_size=self.page_size,
            hot_pages=self._hot.page_count,
            hot_runs=len(self._hot.runs),
            hot_pages_refused=self._hot.refused,
            recordings=self._hot.recorded.recordings,
            held_back_pages=self._hot.recorded.held_back,
            held_back_touched=self._hot.recorded.touched,
            handshake_seconds=self.policy.handshake_seconds,
            is_handed=True,
            own_uid=self._confinement.uid,
            landlock_abi=self._confinement.landlock_abi,
            seccomp=self._confinement.seccomp,
            lacking=self._confinement.lacking,
        )
        reply({"result": status._asdict()})

    def _ping(self, request: dict[str, Any], reply: Reply) -> None:
        reply({"result": None})

    def _stop(self, request: dict[str, Any], reply: Reply) -> None:
        reply({"result": None})
        self.loop.stop()


def _given(request: dict[str, Any]) -> dict[str, int]:
    """The descriptors that came with a request, by name; ValueError where there are not as many as names."""
    return dict(zip(request["given"], request["descriptors"], strict=True))


def _named(request: dict[str, Any]) -> list[LayerIdentity]:
    """What the supervisor has found at the layers' paths."""
    return [LayerIdentity(*found) for found in request.get("named", ())]


def _heed_signals(loop: Loop, put_back: Callable[[], object]) -> None:
    """Stop at SIGTERM; at SIGHUP put back what was removed, for a supervisor that finds no control socket."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # What is done is done below: a handler alone would not end a wait, since epoll is waited for again (PEP 475).
        signal.signal(number, lambda *_: None)

    def heed() -> None:
        numbers = os.read(woken, 4096)
        if signal.SIGHUP in numbers:
            put_back()
        if signal.SIGTERM in numbers:
            loop.stop()

    loop.watch(woken, heed)


def main() -> int:
    """Serve until told to stop; exit code 1 when it could not start."""
    escape_tracebacks()
    os.umask(0o177)
    # A log that nobody takes is to hold no guest up.
    os.set_blocking(sys.stderr.fileno(), False)
    loop = Loop()
    try:
        configuration = decode_configuration(sys.argv[1])
        given = inherited(len(configuration.layers))
        raise_limit()
        confinement = _confined(configuration, given)
        server = PageServer(loop, configuration, given, confinement)
    except (PageServerError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, PageServerError) else f"the configuration is unusable: {error!r}"
        log(f"refused: {reason}")
        print(f"refused: {one_line(reason)}", flush=True)
        return 1
    _heed_signals(loop, server.put_back)
    print("ready", flush=True)
    # Whoever started it reads nothing more, and may be gone.
    os.dup2(given.way_back, WAY_BACK)
    os.close(given.way_back)
    loop.run()
    server.close()
    loop.close()
    return 0


def _confined(configuration: Configuration, given: Inheritance) -> Confinement:
    """Give up what a page server needs no more, before anything is looked at that is others'."""
    os.fchdir(given.own_directory)
    if not configuration.uid:
        return Confinement()
    pages = configuration.memory_size // max(configuration.page_size, 1)
    longest = max(file_bytes(pages), most_bytes(len(configuration.layers), pages))
    wanted = Wanted(configuration.uid, configuration.gid, configuration.strictly)
    return confine(wanted, given.own_directory, longest)


if __name__ == "__main__":
    sys.exit(main())
