"""Logs are files, whatever a VMM has put in their place: none is waited for, and none leads elsewhere."""

import os
from pathlib import Path

import pytest

from supervisor.embedded.log import LEVELS, open_log
from supervisor.vmm.logs import CONSOLE_LOG, PREVIOUS_VMM_LOG, STDERR_LOG, VMM_LOG, appended, last_message, rotate_logs

KINDS = {"FIFO": "a FIFO", "link": "a symbolic link", "directory": "a directory"}


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
@pytest.mark.parametrize("log", (VMM_LOG, PREVIOUS_VMM_LOG, STDERR_LOG))
def test_what_is_in_the_place_of_a_new_log_is_put_away(directory: Path, outside: Path, log: str, kind: str) -> None:
    put(directory / log, kind, outside)
    assert last_message(directory) == ""
    rotate_logs(directory)
    with appended(directory / STDERR_LOG) as stderr:
        os.write(stderr, b"no luck\n")
    assert (directory / VMM_LOG).lstat().st_size == 0
    assert last_message(directory) == "no luck"
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("kind", KINDS)
def test_a_console_that_is_no_file_is_refused(directory: Path, outside: Path, kind: str) -> None:
    put(directory / CONSOLE_LOG, kind, outside)
    with pytest.raises(OSError, match=f"it is {KINDS[kind]}, and no file"), appended(directory / CONSOLE_LOG):
        pass
    assert outside.read_text() == "precious"


def test_a_console_goes_on_and_is_written_as_it_comes(directory: Path) -> None:
    for line in (b"one\n", b"two\n"):
        with appended(directory / CONSOLE_LOG) as console:
            assert os.get_blocking(console)
            os.write(console, line)
    assert (directory / CONSOLE_LOG).read_bytes() == b"one\ntwo\n"


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
