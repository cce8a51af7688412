"""README's way from a kernel package and a root to eight forks, by its own commands; then what a guest may write to."""

import os
import subprocess
import sys
from typing import Any, Final

from tests.linux.inside.host import DATA, RUN, Host, Stopped
from tests.linux.told import RESEEDED

MADE: Final = ("linux", "scratch", "writable")
FORKS: Final = tuple(f"web-{number}" for number in range(1, 9))


def run(host: Host, commands: list[str], kernel: str, rootfs: str) -> None:
    """Run the commands, one after another; end with nothing left."""
    host.ask("GET", "/health")
    for command in commands:
        host.see(command, _shell(command))
    host.see("names", {name: _who(host.get(name)) for name in ("web", *FORKS)})
    for name in FORKS:
        host.verb(name, "standby")
    for name in FORKS:
        # One at a time: each guest that runs makes all others slower.
        host.verb(name, "restore")
        # Where kvm-clock was set forward, Linux holds up its threads of interrupts, one of which hears of the fork.
        host.until_says(name, RESEEDED)
        # The first may be the one that was in the midst of its source's snapshot, which had asked who it is by then.
        host.goes_on(name, more=2)
        host.verb(name, "standby")
    host.see("roots", _disks("disk.root"))
    host.see("refusal", host.ask("DELETE", "/images/linux")[1])
    host.fork("web", "canary", metadata={"role": "canary"})
    host.goes_on("canary")
    host.delete("web")
    for option in ("--scratch 64MB", "--writable"):
        name = option.split()[0].strip("-")
        _shell(f"forktui image build {name} --kernel {kernel} --rootfs {rootfs} {option}")
        host.ask("POST", "/instances", {"name": name, "image": name})
        host.goes_on(name, more=2)
        host.verb(name, "standby")
        host.fork(name, f"{name}-fork")
        host.goes_on(f"{name}-fork")
        host.delete(name)
        host.ask("DELETE", f"/images/{name}")
    host.ask("DELETE", "/images/linux")
    host.see("left", [*host.left(), *(name for name in MADE if (DATA / "images" / name).exists())])


def _shell(command: str) -> str:
    """Return what a command prints, which says `forktui` for the checkout's own."""
    own = f'forktui() {{ "{sys.executable}" -P -m forktui "$@"; }}; '
    environment = os.environ | {"FORKTUI_RUN_DIR": str(RUN)}
    ran = subprocess.run(("sh", "-c", own + command), capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise Stopped(f"{command}: {ran.returncode}: {ran.stderr}")
    return ran.stdout


def _who(instance: Any) -> dict[str, Any]:
    return {"id": instance["id"], "number": instance["number"], "source": "web" if instance["source_id"] else None}


def _disks(name: str) -> list[list[Any]]:
    found = [path.stat() for path in (DATA / "instances").glob(f"*/{name}")]
    return [[status.st_ino, status.st_nlink] for status in found]
