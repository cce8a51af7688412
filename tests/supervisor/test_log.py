"""The supervisor's log: strings of others make no line of their own in it, and libraries say what is wrong only."""

import asyncio
import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.daemon.log import log_to
from supervisor.settings import Settings
from tests.harness.supervisor_process import Home, supervisor

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: ")
FORGED = "x\n2026-01-01 00:00:00,000 INFO supervisor.host.host: forged\x1b[2J\x9b\u2028\u202e"


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Log as a supervisor does while the context lasts."""
    root, ours = logging.getLogger(), logging.getLogger("supervisor")
    handlers, levels = set(root.handlers), (root.level, ours.level)
    log_to(Settings(log_file=path, log_level="debug"))
    (made,) = set(root.handlers) - handlers
    assert isinstance(made, logging.StreamHandler)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(made)
        made.stream.close()
        for logger, level in zip((root, ours), levels, strict=True):
            logger.setLevel(level)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Return the log file of a process that logs as a supervisor does."""
    with logging_to(tmp_path / "log"):
        yield tmp_path / "log"


def records(log: Path) -> list[str]:
    """Return the lines of a log that begin a record; the others are those of a traceback."""
    text = log.read_bytes().decode()
    assert not re.search(r"[^\n\x20-\x7e]", text)
    lines = text.removesuffix("\n").split("\n")
    assert all(line.startswith("    ") or RECORD.match(line) for line in lines), lines
    return [line for line in lines if not line.startswith("    ")]


def test_what_others_wrote_makes_no_record_of_its_own(log: Path) -> None:
    """In a message, in what it is filled with, in a logger's name, in an exception and its cause, and in a warning."""
    ours = logging.getLogger("supervisor.test")
    ours.info("image %s", FORGED)
    ours.info(FORGED.replace("%", "%%"))
    try:
        try:
            raise KeyError(FORGED)
        except KeyError as error:
            raise ValueError(FORGED) from error
    except ValueError:
        ours.exception("failed: %s", FORGED, stack_info=True)
    logging.getLogger("py.warnings").warning("%s", FORGED)
    assert len(records(log)) == 4


def test_one_message_is_bounded(log: Path) -> None:
    logging.getLogger("supervisor.test").info("%s", "y" * (20 << 20))
    assert log.stat().st_size < 10_000


@pytest.mark.parametrize("library", ("watchfiles.main", "aiohttp.access", "asyncio", "textual"))
def test_a_library_says_what_is_wrong_only(log: Path, library: str) -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(library).log(level, "library")
        logging.getLogger("supervisor.test").log(level, "ours")
    assert len([line for line in records(log) if "library" in line]) == 1
    assert len([line for line in records(log) if "ours" in line]) == 3


def test_the_log_is_its_owners_and_its_groups_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with logging_to(tmp_path / "log"):
            assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="root, who may give a file away")
@pytest.mark.parametrize("link", (False, True))
def test_a_log_file_of_somebody_else_is_refused(tmp_path: Path, link: bool) -> None:
    path, precious = tmp_path / "log", tmp_path / "precious"
    precious.write_text("precious")
    if link:
        path.symlink_to(precious)
    else:
        path.touch()
    os.chown(path, 12345, 12345, follow_symlinks=False)
    with pytest.raises(OSError, match="it belongs to uid 12345"), logging_to(path):
        pass
    assert precious.read_text() == "precious"


def test_a_log_file_that_nobody_reads_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(OSError, match="it is a FIFO or socket that nobody reads"), logging_to(tmp_path / "log"):
        pass


def test_a_log_may_be_a_fifo_that_somebody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with logging_to(tmp_path / "log"):
            logging.getLogger("supervisor.test").info("told")
        assert b"INFO supervisor.test: told" in os.read(reader, 4096)
    finally:
        os.close(reader)


async def test_names_of_images_and_paths_of_requests_forge_no_line(embedded: Home) -> None:
    embedded.options = ("--log-level", "debug")
    image = embedded.data / "images" / "x\n2026-01-01 00:00:00,000 INFO supervisor.host.host: forged\x1b[2J"
    image.mkdir(parents=True)
    (image / "vm.json").write_text('{"boot-source": "\\u001b[2J\\n2026"}')
    async with supervisor(embedded) as running:
        reader, writer = await asyncio.open_unix_connection(embedded.socket)
        writer.write(b"DELETE /instances/a\x1b[2J\x85 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        await running.client.images()
    lines = records(running.log)
    assert any("the image cannot be used" in line for line in lines)
    assert not any("watchfiles" in line for line in lines)
    assert not any(line.startswith("2026-01-01 00:00:00,000") for line in lines)
