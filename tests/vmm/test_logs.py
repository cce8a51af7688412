"""Logs are files, whatever a VMM has put in their place: none is waited for, and none leads elsewhere."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from supervisor.consoles.rotation import previous, record
from supervisor.embedded.log import LEVELS, open_log
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import embedded_hypervisor
from supervisor.vmm.logs import STDERR_LOG, VMM_LOG, begin_logs, last_message
from supervisor.vmm.quarters import InDirectory
from tests.harness.plain_outputs import PLAIN

KINDS = ("FIFO", "link", "directory")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a file that is none of the logs."""
    path = tmp_path / "outside"
    path.write_text("precious")
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return an instance's directory."""
    made = tmp_path / "vm"
    made.mkdir()
    return made


def put(path: Path, kind: str, outside: Path) -> None:
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(outside)
    else:
        (path / "inside").mkdir(parents=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("log", [VMM_LOG, STDERR_LOG])
def test_what_is_in_the_place_of_a_new_log_is_put_away(directory: Path, outside: Path, log: str, kind: str) -> None:
    put(directory / log, kind, outside)
    assert last_message(directory) == ""
    begin_logs(directory)
    (directory / VMM_LOG).write_text("no luck\n")
    assert last_message(directory) == "no luck"
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_place_of_what_a_new_log_leaves_is_put_away(directory: Path, outside: Path, kind: str) -> None:
    log = directory / VMM_LOG
    for path in (previous(log), record(log)):
        put(path, kind, outside)
    log.write_text("an earlier run\n")
    begin_logs(directory)
    assert previous(log).read_text() == "an earlier run\n"
    assert last_message(directory) == ""
    assert outside.read_text() == "precious"


def test_what_a_request_of_an_embedded_vmm_says_forges_no_line_of_its_log(tmp_path: Path) -> None:
    log = open_log(str(tmp_path / "log"), "vm", LEVELS["info"])
    try:
        log.error('Received a request on "/x\n2026-01-01T00:00:00 [vm:main] forged\x1b[2J\x9b\u2028\udc80"')
        log.info("y" * (1 << 20))
    finally:
        os.close(log.fd)
    text = (tmp_path / "log").read_text()
    assert len(text.splitlines()) == 2
    assert len(text) < 10_000
    assert r"/x\n2026-01-01T00:00:00 [vm:main] forged\x1b[2J\x9b\u2028\udc80" in text


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("2026-01-31T12:00:00.0 [vm:main] one\n2026-01-31T12:00:00.1 [vm:main] two\n", "two"),
        ("2026-01-31T12:00:00.0 [vm:main] why\nError: Why\n2026-01-31T12:00:00.1 [vm:main] Vmm is stopping.\n", "why"),
        ("Error: bad arguments\n", "Error: bad arguments"),
        ("2026-01-31T12:00:00.0 [vm:main] panicked at main.rs:1:\ncalled unwrap on None\n", "called unwrap on None"),
        ("2026-01-31T12:00:00.0 [vm:main] Firecracker exiting successfully. exit_code=0\n", ""),
    ],
)
def test_the_last_message_is_the_reason_of_an_end(directory: Path, log: str, message: str) -> None:
    (directory / VMM_LOG).write_text(log)
    assert last_message(directory) == message


def test_the_last_message_of_a_vmm_of_an_earlier_version_is_found(directory: Path) -> None:
    (directory / VMM_LOG).touch()
    (directory / STDERR_LOG).write_text("no luck\n")
    assert last_message(directory) == "no luck"


async def test_what_an_earlier_vmm_left_is_removed_beside_the_event_loop(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[threading.Thread] = []
    scandir = os.scandir

    def seen(folder: Any) -> Any:
        if isinstance(folder, int):
            cleared.append(threading.current_thread())
        return scandir(folder)

    directory, socket = run_dir / "vm", run_dir / "vm.sock"
    put(directory / STDERR_LOG, "directory", run_dir)
    monkeypatch.setattr(os, "scandir", seen)
    vmm = await Vmm.spawn(
        embedded_hypervisor(),
        instance_id="vm",
        quarters=InDirectory(directory, socket),
        config_file=None,
        consoles=PLAIN,
    )
    await vmm.terminate()
    assert not (directory / STDERR_LOG).exists()
    assert cleared
    assert threading.main_thread() not in cleared
