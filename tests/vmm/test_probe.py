"""A program is asked for its version: it may print for ever, or leave another one behind."""

import signal
from pathlib import Path

import psutil
import pytest

from supervisor.vmm.probe import OUTPUT_BYTES, Printed, run

SECONDS = 30.0


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("echo v1", Printed(0, b"v1\n")),
        ("echo v1; exit 3", Printed(3, b"v1\n")),
        ("exec >&-; exit 0", Printed(0, b"")),
        ("kill -9 $$", Printed(-signal.SIGKILL, b"")),
        ("echo no >&2", Printed(0, b"")),
    ],
)
def test_what_a_program_prints_and_how_it_ends_is_told(script: str, printed: Printed) -> None:
    assert run(shell(script), SECONDS) == printed


def test_a_program_that_prints_for_ever_is_read_no_further() -> None:
    with pytest.raises(TimeoutError):
        run(("yes",), SECONDS)
    assert run(shell(f"head -c {OUTPUT_BYTES} /dev/zero"), SECONDS).output == bytes(OUTPUT_BYTES)


def test_what_a_program_leaves_is_not_waited_for_and_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    assert run(shell(f"sleep 1000 & echo $! > {pid}; echo v1"), SECONDS) == Printed(0, b"v1\n")
    left = int(pid.read_text())
    psutil.wait_procs([psutil.Process(left)] if psutil.pid_exists(left) else [], timeout=SECONDS)
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE


def test_a_program_that_never_ends_is_ended() -> None:
    before, children = len(list(Path("/proc/self/fd").iterdir())), psutil.Process().children()
    with pytest.raises(TimeoutError):
        run(("sleep", "1000"), 0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert psutil.Process().children() == children
