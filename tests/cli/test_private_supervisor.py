"""A private supervisor: started where none listens, ended with its user, and its VMs go on."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from forktui.client.private_supervisor import NotStartedError, listens, private_supervisor
from supervisor.models import CreateRequest
from supervisor.settings import Settings
from tests.harness.pseudo_terminal import Terminal, pseudo_terminal
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

DONE, FAILED, USAGE = 0, 1, 2


def settings_of(home: Home) -> Settings:
    return Settings(
        data_dir=home.data,
        run_dir=home.run,
        hypervisor="embedded",
        log_file=home.root / "log",
        socket=None,
        config=None,
    )


def test_it_serves_while_the_context_lasts(embedded: Home) -> None:
    with private_supervisor(settings_of(embedded)) as process:
        assert listens(embedded.socket)
        assert process.poll() is None
        assert os.getsid(process.pid) == process.pid, "a Ctrl-C in this terminal is not for it"
    assert process.returncode == DONE
    assert not listens(embedded.socket)
    assert not embedded.socket.exists()


def test_it_is_ended_also_where_the_context_raises(embedded: Home) -> None:
    with pytest.raises(KeyboardInterrupt), private_supervisor(settings_of(embedded)) as process:
        raise KeyboardInterrupt
    assert process.returncode == DONE


def test_one_that_was_killed_is_reaped(embedded: Home) -> None:
    with private_supervisor(settings_of(embedded)) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL


async def test_one_that_may_not_start_says_why(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        with pytest.raises(NotStartedError) as caught, private_supervisor(settings_of(embedded)):
            pass
        assert str(caught.value).startswith(f"another supervisor (pid {running.process.pid}) holds {embedded.data}")


def test_who_listens(run_dir: Path) -> None:
    path = run_dir / "socket"
    assert not listens(path)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        assert not listens(path)
        one.listen()
        assert listens(path)
    assert not listens(path)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Return a terminal for `dashboard`."""
    own = ("SSH_CONNECTION", "LINES", "COLUMNS")
    for name in [name for name in os.environ if name.startswith("FORKTUI_") or name in own]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm-256color")
    with pseudo_terminal() as made:
        yield made


def dashboard(home: Home, terminal: Terminal, *options: str) -> subprocess.Popen[bytes]:
    """Start `forktui` on the terminal."""
    own = {"FORKTUI_DATA_DIR": str(home.data), "FORKTUI_RUN_DIR": str(home.run), "FORKTUI_HYPERVISOR": "embedded"}
    return subprocess.Popen(
        (sys.executable, "-P", "-m", "forktui", *options),
        stdin=terminal.device,
        stdout=terminal.device,
        stderr=terminal.device,
        env=os.environ | own,
        start_new_session=True,
    )


def quitted(process: subprocess.Popen[bytes], terminal: Terminal, key: str = "q") -> int:
    """Press the key that leaves, and return the exit code."""
    terminal.type(key)
    drained = terminal.leave()
    code = process.wait(PATIENCE)
    drained.join(PATIENCE)
    return code


async def test_forktui_attaches_to_a_supervisor_that_listens(embedded: Home, terminal: Terminal) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="mine", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        process = dashboard(embedded, terminal)
        terminal.until("mine")
        assert psutil.Process(process.pid).children() == []
        assert quitted(process, terminal) == DONE
        await running.client.health()
        await running.client.delete("mine")


async def test_forktui_starts_one_where_none_listens_and_finds_the_vms_again(
    embedded: Home, terminal: Terminal
) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="mine", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        pid = (await running.client.instance("mine")).vmm_pid
    process = dashboard(embedded, terminal)
    terminal.until("mine")
    (private,) = psutil.Process(process.pid).children()
    terminal.type("q")
    terminal.until("on a private supervisor?")
    assert quitted(process, terminal, "y") == DONE
    assert not private.is_running()
    assert not embedded.socket.exists()
    assert (embedded.data / "supervisor.log").exists()
    assert pid is not None
    assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_dashboard_that_is_terminated_ends_its_supervisor(embedded: Home, terminal: Terminal) -> None:
    process = dashboard(embedded, terminal)
    terminal.until("live")
    (private,) = psutil.Process(process.pid).children()
    process.terminate()
    drained = terminal.leave()
    assert process.wait(PATIENCE) == FAILED
    drained.join(PATIENCE)
    assert not private.is_running()
    assert not embedded.socket.exists()


def test_a_dashboard_whose_terminal_has_gone_ends_without_being_told(embedded: Home, terminal: Terminal) -> None:
    process = dashboard(embedded, terminal)
    terminal.until("live")
    (private,) = psutil.Process(process.pid).children()
    # It has no controlling terminal, as under setsid(1): no SIGHUP comes.
    terminal.hang_up()
    # Python's own is 120 where there was something left to flush: sys.exit in its library reference.
    assert process.wait(PATIENCE) in (FAILED, 120)
    assert not private.is_running()
    assert not embedded.socket.exists()


@pytest.mark.parametrize("options", [("--socket", "{}/other.sock"), ("--read-only",)], ids=["named", "read-only"])
def test_forktui_starts_none_but_waits_where_a_socket_was_named_or_nothing_may_change(
    embedded: Home, terminal: Terminal, options: tuple[str, ...]
) -> None:
    process = dashboard(embedded, terminal, *(option.format(embedded.root) for option in options))
    terminal.until("Waiting for the supervisor")
    assert psutil.Process(process.pid).children() == []
    assert quitted(process, terminal) == DONE
    assert list(embedded.root.iterdir()) == []


@pytest.mark.parametrize("reason", ["dumb", "small"])
def test_a_terminal_that_cannot_draw_is_refused_before_anything_starts(
    embedded: Home, terminal: Terminal, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "dumb":
        monkeypatch.setenv("TERM", "dumb")
        said = "TERM=dumb cannot move the cursor"
    else:
        terminal.resize(10, 40)
        said = "the terminal is 40x10"
    process = dashboard(embedded, terminal)
    terminal.until(said)
    drained = terminal.leave()
    assert process.wait(PATIENCE) == USAGE
    drained.join(PATIENCE)
    assert list(embedded.root.iterdir()) == []
