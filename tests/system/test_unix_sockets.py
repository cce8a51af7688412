"""Who listens at a socket, whatever the state of its queue."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervisor.system.processes import start_time_of
from supervisor.system.unix_sockets import connect, listener_at

LONG = 30.0
SHORT = 0.05


def test_a_listener_whose_queue_is_full_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as first,
        ThreadPoolExecutor() as threads,
    ):
        listener.bind(os.fspath(path))
        listener.listen(0)
        first.connect(os.fspath(path))
        assert connect(path) == 0, "a full queue is one of a process that listens"
        found = threads.submit(listener_at, path)
        with pytest.raises(TimeoutError):
            found.result(SHORT)
        listener.accept()[0].close()
        assert found.result(LONG) == (os.getpid(), start_time_of(os.getpid()))


def test_nobody_listens_where_the_queue_stays_full_or_there_is_no_listener(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert listener_at(path) is None
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(os.fspath(path))
        assert listener_at(path) is None
        listener.listen(0)
        first.connect(os.fspath(path))
        assert listener_at(path) is None
