"""A Linux host with KVM and nested paging, emulated by QEMU, on this machine's own files; jobs are run there."""

import contextlib
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from tests.linux.machines import Machines
from tests.linux.packages import Debian
from tests.linux.report import Report

MEMORY: Final = "6G"
"""For its root's tmpfs, snapshots and guests; what is not used takes none of this machine's."""
CPU: Final = "max,-pku,-mpx,-la57"
# One CPU: with two, guests of several VMs at a time die of triple faults (QEMU 7.2, thread=multi).
CPUS: Final = "1"
# highres, nohz: QEMU loses an interrupt that comes in the moment in which a guest is entered (helper_vmrun in its
# svm_helper.c changes interrupt_request without a lock). A periodic timer comes again; any other would be waited for.
# tsc: guests read the host's clock by its TSC (ptp_kvm), which no watchdog is to find fault with on a slow machine.
ARGUMENTS: Final = (
    "console=ttyS0 panic=-1 mitigations=off no_timer_check quiet highres=off nohz=off clocksource=tsc tsc=reliable"
)
READY_TIMEOUT: Final = 300.0
"""Seconds until the agent answers: some ten where the machine is idle."""
JOB_TIMEOUT: Final = 900.0
"""Seconds for a job: a minute or two where the machine is idle."""
LOOK_AGAIN: Final = 0.5
"""Seconds between two looks whether QEMU is still there."""
TAIL: Final = 4000
"""Characters of the host's own console that are shown where it fails."""


class NestedHostError(Exception):
    """The nested host has ended or does not answer; the message has the end of its console."""


class NestedHost:
    """The host while it runs; jobs are run one after another."""

    def __init__(self, channel: socket.socket, console: Path) -> None:
        self._channel = channel
        self._lines = channel.makefile("rb")
        self._console = console

    @classmethod
    @contextlib.contextmanager
    def running(cls, debian: Debian, machines: Machines, firecracker: Path) -> Iterator[Self]:
        """Boot a host while the context lasts. Raises NestedHostError."""
        with contextlib.ExitStack() as stack:
            # A socket's path is short.
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nested-", dir="/tmp")))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(directory / "jobs.sock"))
            listener.listen()
            console = directory / "console.log"
            log = stack.enter_context(console.open("wb"))
            command = (*debian.program("qemu-system-x86_64"), *_options(debian, machines, directory / "jobs.sock"))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(_end, process)
            host = cls(stack.enter_context(_connection(listener, process, console)), console)
            host._ask({"images": str(machines.images), "firecracker": str(firecracker)}, READY_TIMEOUT)
            yield host

    def run(self, job: str, **arguments: Any) -> Report:
        """Run a module of tests/linux/inside/jobs, and return what it has seen. Raises NestedHostError."""
        began = time.monotonic()
        answer = self._ask({"job": job, "arguments": arguments}, JOB_TIMEOUT)
        return Report(job=job, seconds=time.monotonic() - began, **answer)

    def _ask(self, what: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._channel.settimeout(timeout)
        try:
            self._channel.sendall(json.dumps(what).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise NestedHostError(f"the nested host does not answer: {error}{_said(self._console)}") from error
        if not line:
            raise NestedHostError(f"the nested host has ended{_said(self._console)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _connection(listener: socket.socket, process: subprocess.Popen[bytes], console: Path) -> socket.socket:
    """Return the connection that QEMU makes before it boots anything. Raises NestedHostError where it ends instead."""
    listener.settimeout(LOOK_AGAIN)
    while process.poll() is None:
        with contextlib.suppress(TimeoutError):
            return listener.accept()[0]
    raise NestedHostError(f"QEMU has ended{_said(console)}")


def _said(console: Path) -> str:
    return f"; its console ends:\n{console.read_text(errors='replace')[-TAIL:]}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a nested host: there is nothing in it to be kept."""
    process.kill()
    process.wait()


def _options(debian: Debian, machines: Machines, channel: Path) -> list[str]:
    firmware = [debian.root / "usr/share" / name for name in ("qemu", "seabios")]
    return [
        *(word for folder in firmware if folder.is_dir() for word in ("-L", str(folder))),
        *("-accel", "tcg,tb-size=1024", "-cpu", CPU, "-smp", CPUS, "-m", MEMORY),
        *("-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=jobs,path={channel}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=jobs,name=jobs"),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
        *("-kernel", str(machines.kernel), "-initrd", str(machines.initrd)),
        *("-append", ARGUMENTS),
    ]
