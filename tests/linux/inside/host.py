"""The supervisor in the nested host, what is asked of it, and what its guests print."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.harness.unix_http import connected, request
from tests.linux.inside.waiting import changes, events
from tests.linux.told import Stamps, Tick, ticks

DATA: Final = Path("/tmp/data")
RUN: Final = Path("/tmp/run")
LOG: Final = Path("/tmp/supervisor.log")
PATIENCE: Final = 240.0
"""Seconds for what takes ten where the machine is idle."""
SLOW: Final = 5.0
"""Seconds of a query that is told among the steps."""
OWN_LOCK: Final = "lock"
"""The file in the run directory that the supervisor has locked."""
ENDED: Final = ("Stopped", "Unknown")
TAIL: Final = 6000


class Stopped(Exception):  # noqa: N818 - why a job goes no further
    """What a job waits for does not come; the message says what, and how the instance is."""


class Host:
    """What jobs are given: verbs, and waits for what guests print. What they note down is in the report."""

    def __init__(self, images: Path, firecracker: Path) -> None:
        self._supervisor: subprocess.Popen[str] | None = None
        self._options: tuple[str, ...] = ()
        self._seen: dict[str, Any] = {}
        self._consoles: dict[str, str] = {}
        self._steps: list[str] = []
        self._began = time.monotonic()
        self._images, self._firecracker = images, firecracker

    def see(self, name: str, value: Any) -> Any:
        """Note something down for the tests; returns it."""
        self._seen[name] = value
        self._say(f"{name}: {str(value)[:300]}")
        return value

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Make a request of the supervisor; returns the status and the answer."""
        self._run_supervisor()
        began = time.monotonic()
        status, answer = request(RUN / "supervisor.sock", method, target, body, timeout=PATIENCE)
        if method != "GET" or time.monotonic() - began > SLOW:
            message = answer.get("message", "") if isinstance(answer, dict) else ""
            self._say(f"{method} {target} {body or ''} -> {status} in {time.monotonic() - began:.1f} s {message}")
        return status, answer

    def verb(self, of: str, verb: str, **body: Any) -> Any:
        """Have a verb done to an instance; returns the answer. Raises Stopped where it is refused."""
        return self._done("POST", f"/instances/{of}/{verb}", body)

    def create(self, name: str, image: str, **body: Any) -> Any:
        """Create an instance of an image of the suite, which it has to itself."""
        self._place(image)
        return self._done("POST", "/instances", {"name": name, "image": image, **body})

    def fork(self, source: str, name: str, **body: Any) -> Any:
        """Fork a Standby instance by userfaultfd, or by what `body` says, and have it run."""
        return self.verb(source, "fork", name=name, share_memory=True, target_state="Running", **body)

    def fan_out(self, source: str, count: int, prefix: str) -> None:
        """Fork a Standby instance so many times. Raises Stopped where one of them is not made."""
        answer = self.verb(source, "fan-out", count=count, name_prefix=prefix)
        if failed := [child["error"]["message"] for child in answer["children"] if child.get("error")]:
            raise Stopped(f"fan-out of {source}: {failed}")

    def delete(self, name: str) -> None:
        """Delete an instance with all that was forked of it; what their guests printed is kept."""
        self._keep_consoles()
        self._done("DELETE", f"/instances/{name}?cascade=true")

    def get(self, name: str) -> Any:
        """Return an instance. Raises Stopped where there is none."""
        return self._done("GET", f"/instances/{name}")

    def statistics(self, name: str) -> Any:
        """Return an instance's counters."""
        return self._done("GET", f"/instances/{name}/stats")

    def console(self, name: str) -> str:
        """Return what an instance's guest has printed."""
        return _text(_console_of(self.get(name)))

    def ticks(self, name: str) -> list[Tick]:
        """Return a guest's looks at its memory and its disk."""
        return ticks(self.console(name))

    def until(self, name: str, what: str, holds: Callable[[str], object]) -> None:
        """Wait until a guest's console is such that something holds. Raises Stopped where it does not come to that."""
        began = time.monotonic()
        console = _console_of(self.get(name))
        for changed in changes(console.parent):
            # How the instance is costs the guests of this one CPU a request, and is of interest where they are silent.
            ended = not changed and self.get(name)["state"] in ENDED
            # What it printed before it ended may have been written since.
            if holds(_text(console)):
                break
            if ended or time.monotonic() - began > PATIENCE:
                raise Stopped(f"{name}: not {what} after {time.monotonic() - began:.0f} s: {self.get(name)}")
        self._say(f"   {name}: {what} after {time.monotonic() - began:.1f} s")

    def until_says(self, name: str, pattern: str) -> None:
        """Wait for words on a guest's console."""
        self.until(name, f"says {pattern}", lambda console: re.search(pattern, console))

    def goes_on(self, *names: str, more: int = 2) -> None:
        """Wait for so many more ticks of each."""
        wanted = {name: len(self.ticks(name)) + more for name in names}
        for name in names:
            self.until(name, f"{more} more ticks", partial(_has_ticks, wanted[name]))

    def stamps(self, name: str, holds: Callable[[Stamps], bool]) -> Stamps:
        """Return the stamps of the first tick of which something holds, or of the last in PATIENCE."""
        began = time.monotonic()
        while True:
            # A tick takes its date a second after the one before, so that the first stamp is the earlier.
            self.goes_on(name, more=1)
            known, before = len(self.ticks(name)), time.time()
            self.goes_on(name, more=1)
            found = Stamps(before, self.ticks(name)[known].date, time.time())
            if holds(found) or time.monotonic() - began > PATIENCE:
                return found

    def until_state(self, name: str, *states: str) -> Any:
        """Wait until an instance is in one of these states, and return it then."""
        look = partial(self.get, name)
        return self._until_found(name, " or ".join(states), look, lambda instance: instance["state"] in states)

    def until_statistics(self, name: str, what: str, holds: Callable[[Any], object]) -> Any:
        """Wait until an instance's counters are such that something holds, and return them then."""
        return self._until_found(name, what, partial(self.statistics, name), holds)

    def until_balloon_has(self, name: str, mib: int) -> None:
        """Wait until a guest has given so much to its balloon, or all but so much back."""
        look = partial(self.ask_vmm, name, "GET", "/balloon/statistics")
        self._until_found(name, f"with a balloon of {mib} MiB", look, lambda balloon: balloon["actual_mib"] == mib)

    def ask_vmm(self, name: str, method: str, target: str, body: Any = None) -> Any:
        """Make a request of an instance's Firecracker itself."""
        status, answer = request(RUN / f"{self.get(name)['id']}.sock", method, target, body, timeout=PATIENCE)
        if method != "GET":
            self._say(f"{name}: {method} {target} {body or ''} -> {status}")
        return answer

    def over_vsock(self, name: str, port: int) -> str:
        """Return what a guest answers at a port of its vsock device. Raises Stopped where nobody does."""
        place = _directory_of(self.get(name)) / "v.sock"
        with connected(place, PATIENCE) as peer, peer.makefile("r") as answer:
            peer.sendall(f"CONNECT {port}\n".encode())
            first = answer.readline()
            if not first.startswith("OK "):
                raise Stopped(f"{name}: nobody answers at port {port} of its vsock: {first!r}")
            return answer.readline().strip()

    def kill_supervisor(self) -> None:
        """Kill the supervisor, and start another one."""
        assert self._supervisor is not None
        self._supervisor.kill()
        self._supervisor.wait()
        self._run_supervisor()

    def supervise(self, *options: str) -> None:
        """End the supervisor, and go on with one that has these options beside those of all."""
        if self._supervisor is not None:
            self._supervisor.terminate()
            self._supervisor.wait()
        self._options = options
        self._run_supervisor()

    def left(self) -> list[str]:
        """Return what is there of instances: files and VMMs."""
        files = (path for place in (DATA / "instances", DATA / "templates", RUN) for path in place.rglob("*"))
        commands = (path.read_bytes().split(b"\0") for path in Path("/proc").glob("[0-9]*/cmdline"))
        vmms = (words for words in commands if words[0].decode() == str(self._firecracker))
        return [
            *(str(path) for path in files if path.is_file() and path.name != OWN_LOCK),
            *(str(words) for words in vmms),
        ]

    def report(self) -> dict[str, Any]:
        """Return what the last job has seen, and begin with nothing for the next: its instances are deleted."""
        if self._supervisor is not None:
            self._keep_consoles()
            for instance in self.ask("GET", "/instances")[1]:
                self.ask("DELETE", f"/instances/{instance['id']}?cascade=true")
        report = {"seen": self._seen, "consoles": self._consoles, "steps": self._steps, "log": _text(LOG)[-TAIL:]}
        self._seen, self._consoles, self._steps = {}, {}, []
        return report

    def _until_found(self, name: str, what: str, look: Callable[[], Any], holds: Callable[[Any], object]) -> Any:
        """Look again at each event until something holds of what is found, and return that."""
        self._run_supervisor()
        began, found = time.monotonic(), None
        for _ in events(RUN / "supervisor.sock", PATIENCE):
            found = look()
            if holds(found):
                self._say(f"   {name}: {what} after {time.monotonic() - began:.1f} s")
                return found
            if time.monotonic() - began > PATIENCE:
                break
        raise Stopped(f"{name}: not {what} after {time.monotonic() - began:.0f} s: {found}")

    def _run_supervisor(self) -> None:
        if self._supervisor is not None and self._supervisor.poll() is None:
            return
        options: tuple[str | Path, ...] = (
            "--data-dir",
            DATA,
            "--run-dir",
            RUN,
            "--hypervisor",
            "firecracker",
            "--firecracker",
            self._firecracker,
            *self._options,
        )
        with LOG.open("ab") as log:
            self._supervisor = subprocess.Popen(
                (sys.executable, "-P", "-m", "supervisor", *options), stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._supervisor.stdout is not None
        line = self._supervisor.stdout.readline()
        self._say(f"supervisor: {line.strip() or _text(LOG)[-TAIL:]}")

    def _place(self, image: str) -> None:
        """Put an image where the supervisor looks; those that have a file in common share it."""
        shared = DATA / "images" / ".shared"
        shared.mkdir(parents=True, exist_ok=True)
        target = DATA / "images" / image
        if target.exists():
            return
        target.mkdir()
        for file in sorted(path for path in (self._images / image).iterdir() if path.name != "vm.json"):
            if not (shared / file.name).exists():
                shutil.copy(file, shared / file.name)
            (target / file.name).hardlink_to(shared / file.name)
        shutil.copy(self._images / image / "vm.json", target)

    def _keep_consoles(self) -> None:
        for instance in self.ask("GET", "/instances")[1]:
            self._consoles[instance["name"]] = _text(_console_of(instance))

    def _done(self, method: str, target: str, body: Any = None) -> Any:
        status, answer = self.ask(method, target, body)
        if status >= 400:
            raise Stopped(f"{method} {target} {body or ''}: {status} {answer}")
        return answer

    def _say(self, line: str) -> None:
        self._steps.append(f"[{time.monotonic() - self._began:6.1f}] {line}")
        # On the host's own console, beside what its kernel says, they are seen while the job goes on.
        print(self._steps[-1], flush=True)


def _has_ticks(count: int, console: str) -> bool:
    return len(ticks(console)) >= count


def _directory_of(instance: Any) -> Path:
    return DATA / "instances" / str(instance["id"])


def _console_of(instance: Any) -> Path:
    return _directory_of(instance) / "console.log"


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
