"""`forktui demo`: what it does on each hypervisor, what it says of it, and that nothing of it is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from watchfiles import watch

from forktui.cli import main
from forktui.client.api import SupervisorClient
from forktui.demo import scenario
from forktui.demo.scenario import ScenarioError
from supervisor.models import CreateRequest
from tests.cli.conftest import assert_nothing_is_left
from tests.harness.checkout import ROOT
from tests.harness.programs import DONE, FAILED
from tests.harness.pseudo_terminal import Terminal, pseudo_terminal
from tests.harness.supervisor_process import Home, processes_of, supervisor

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_options")]

PATIENCE = 60.0
NOBODY = 65534
LOOK_AGAIN = 100
"""Milliseconds: for what was written before the watch began."""


def assert_proven(report: dict[str, Any], hypervisor: str, forks: int) -> None:
    """Check the report itself, and not what it says of itself alone."""
    assert report["reasons"] == []
    assert report["ok"] is True
    assert report["hypervisor"] == hypervisor
    assert report["hypervisor_version"]
    assert (report["source"]["state"], report["source"]["mem_locked"]) == ("Standby", True)
    assert report["source"]["fork_count"] == forks + 1, "the forks, and the one that recorded"
    assert report["recorded"]["pages"] >= 4096, "the hot set alone is 4096 pages"
    assert report["recorded"]["runs"] >= 1
    assert [fork["name"] for fork in report["forks"]] == [f"fork-{number}" for number in range(1, forks + 1)]
    for fork in report["forks"]:
        assert (fork["state"], fork["restored"], fork["corrupt"]) == ("Running", True, None)
        assert fork["passes"] >= 1
        assert fork["prefetched_pages"] >= 4096 * 0.99
        assert fork["residual_faults"] <= report["recorded"]["pages"] * 0.01
        assert {"load", "prefetch", "resume"} <= set(fork["phases"])
        assert all(milliseconds >= 0 for milliseconds in fork["phases"].values())


def test_on_the_embedded_vmm(homes: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["demo", "--headless", "--json", "--forks", "8", "--hypervisor", "embedded"]) == DONE
    printed = capsys.readouterr()
    assert printed.err == ""
    assert_proven(json.loads(printed.out), "embedded", 8)
    assert len(homes) == 1


def test_on_firecracker(homes: list[Path], firecracker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--forks", "4", "--hypervisor", "firecracker", "--firecracker", str(firecracker)]
    assert main.main(["demo", "--headless", "--json", *options]) == DONE
    assert_proven(json.loads(capsys.readouterr().out), "firecracker", 4)


def test_the_firecracker_it_must_have_is_missing(
    homes: list[Path], run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(run_dir / "no-firecracker")
    assert main.main(["demo", "--headless", "--hypervisor", "firecracker", "--firecracker", missing]) == FAILED
    printed = capsys.readouterr()
    assert missing in printed.err
    assert printed.err.startswith("forktui: firecracker cannot run here")
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert len(homes) == 1


@pytest.fixture(scope="module")
def unprivileged_python() -> Iterator[Path]:
    """Return an interpreter with this project's packages that an unprivileged user can run."""
    if os.geteuid() != 0:
        pytest.skip("root, who can become an unprivileged user")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (os.path.realpath(sys.executable), f"/usr/bin/{version}", f"/usr/local/bin/{version}")
    folder = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        base = next((path for path in candidates if runs_unprivileged(path, "")), None)
        if base is None:
            pytest.skip(f"a {version} that an unprivileged user can run")
        subprocess.run((base, "-m", "venv", "--without-pip", str(folder / "venv")), check=True, timeout=PATIENCE)
        packages = folder / "venv" / "lib" / version / "site-packages"
        (packages / "forktui.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
        python = folder / "venv" / "bin" / "python"
        if not runs_unprivileged(str(python), "import forktui.cli.main"):
            pytest.skip("a checkout and an environment that an unprivileged user can read")
        yield python
    finally:
        shutil.rmtree(folder)


def runs_unprivileged(python: str, script: str) -> bool:
    """Return whether an unprivileged user can run a script with this interpreter."""
    command = (python, "-P", "-c", script)
    try:
        ended = subprocess.run(
            command, user=NOBODY, group=NOBODY, extra_groups=(), cwd="/", capture_output=True, timeout=PATIENCE
        )
    except OSError:
        return False
    return ended.returncode == 0


def test_as_an_unprivileged_user(unprivileged_python: Path, run_dir: Path) -> None:
    os.chown(run_dir, NOBODY, NOBODY)
    ended = subprocess.run(
        (str(unprivileged_python), "-P", "-m", "forktui", "demo", "--headless", "--json", "--forks", "8"),
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
        cwd=run_dir,
        env={"HOME": str(run_dir), "PATH": "/usr/bin:/bin", "FORKTUI_HYPERVISOR": "embedded"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stderr) == (DONE, "")
    assert_proven(json.loads(ended.stdout), "embedded", 8)
    owned = [process for process in psutil.process_iter(["uids"]) if process.info["uids"].real == NOBODY]
    assert [process.cmdline() for process in owned if str(unprivileged_python) in process.cmdline()] == []


TELL_HOME = """
import os, sys, tempfile
make = tempfile.mkdtemp
def tell(*arguments, **named):
    path = make(*arguments, **named)
    os.write(int(sys.argv[1]), path.encode())
    os.close(int(sys.argv[1]))
    return path
tempfile.mkdtemp = tell
from forktui.cli.main import main
sys.exit(main(["demo", "--hypervisor", "embedded", *sys.argv[2:]]))
"""
"""The demo, which tells a pipe where it makes its home."""


def test_as_an_unprivileged_user_without_kvm(unprivileged_python: Path, run_dir: Path, firecracker: Path) -> None:
    if Path("/dev/kvm").stat().st_mode & 0o006:
        pytest.skip("a /dev/kvm that is not everybody's")
    run_dir.chmod(0o755)
    binary = shutil.copy(firecracker, run_dir / "firecracker")
    ended = subprocess.run(
        (str(unprivileged_python), "-P", "-m", "forktui", "demo", "--headless", "--hypervisor", "firecracker"),
        user=NOBODY,
        group=NOBODY,
        extra_groups=(),
        cwd=run_dir,
        env={"HOME": str(run_dir), "FORKTUI_FIRECRACKER": str(binary)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (FAILED, "", 1)
    assert ended.stderr.startswith("forktui: firecracker cannot run here: /dev/kvm cannot be opened: ")


class Demo:
    """A demo in a process of its own, from when it has a home on."""

    def __init__(self, *options: str, terminal: int | None = None) -> None:
        reader, writer = os.pipe()
        stream = subprocess.PIPE if terminal is None else terminal
        self.process = subprocess.Popen(
            (sys.executable, "-P", "-c", TELL_HOME, str(writer), *options),
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=stream,
            stderr=stream,
            pass_fds=(writer,),
            start_new_session=True,
            text=True,
        )
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as told:
            home = told.read()
        # What a failed test leaves is ended and removed by this path: an empty one would be the working directory.
        assert home.startswith("/"), "the demo ended before it had a home"
        self.home = Path(home)

    def until_logged(self, text: str) -> None:
        """Return when the supervisor has logged this."""
        deadline = time.monotonic() + PATIENCE
        for _ in watch(self.home, step=5, debounce=20, rust_timeout=LOOK_AGAIN, yield_on_timeout=True):
            if (self.home / "log").exists() and text in (self.home / "log").read_text():
                return
            assert time.monotonic() < deadline, f"not logged: {text}"

    def supervisor(self) -> psutil.Process:
        """Return the private supervisor."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def end(self) -> tuple[int, str, str]:
        """Wait for the demo's end and return its exit code, standard output and standard error."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


@pytest.fixture
def start() -> Iterator[Callable[..., Demo]]:
    """Return what starts a demo in a process of its own; whatever a failed test leaves is ended."""
    demos: list[Demo] = []

    def started(*options: str, terminal: int | None = None) -> Demo:
        demos.append(Demo(*options, terminal=terminal))
        return demos[-1]

    yield started
    for one in demos:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        for process in processes_of(one.home):
            process.kill()
        shutil.rmtree(one.home, ignore_errors=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_interrupted_it_leaves_nothing(start: Callable[..., Demo], number: signal.Signals) -> None:
    one = start("--headless", "--forks", "24")
    one.until_logged("warm-up: forked from source")
    one.process.send_signal(number)
    assert one.end() == (FAILED, "", "forktui: interrupted\n")
    assert_nothing_is_left(one.home)


def test_interrupted_twice_it_still_leaves_nothing(start: Callable[..., Demo]) -> None:
    one = start("--headless", "--forks", "24")
    one.until_logged("warm-up: forked from source")
    one.process.send_signal(signal.SIGINT)
    one.process.send_signal(signal.SIGINT)
    one.process.send_signal(signal.SIGTERM)
    assert one.end()[0] == FAILED
    assert_nothing_is_left(one.home)


def test_without_its_supervisor_it_fails_and_leaves_nothing(start: Callable[..., Demo]) -> None:
    one = start("--headless", "--json", "--forks", "24")
    one.until_logged("warm-up: forked from source")
    one.supervisor().kill()
    code, output, errors = one.end()
    assert code == FAILED
    assert json.loads(output) == {"ok": False, "reasons": [errors.removeprefix("forktui: ").rstrip("\n")]}
    assert errors.startswith("forktui: ")
    assert errors.count("\n") == 1
    assert_nothing_is_left(one.home)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """Return a terminal that `start` can draw on."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("LINES", "COLUMNS", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    with pseudo_terminal() as made:
        yield made


def test_in_the_dashboard_the_forks_are_seen_to_come(start: Callable[..., Demo], terminal: Terminal) -> None:
    one = start("--forks", "2", terminal=terminal.device)
    for text in ("source", "warm-up", "fork-1", "fork-2", "◆ locked"):
        terminal.until(text)
    terminal.type("q")
    drained = terminal.leave()
    assert one.process.wait(PATIENCE) == DONE
    drained.join(PATIENCE)
    assert_nothing_is_left(one.home)


def test_a_failure_is_shown_in_the_dashboard_and_is_the_exit_code(
    start: Callable[..., Demo], terminal: Terminal
) -> None:
    one = start("--forks", "24", terminal=terminal.device)
    one.until_logged("warm-up: forked from source")
    one.supervisor().kill()
    terminal.until("the demo failed")
    terminal.type("q")
    drained = terminal.leave()
    assert one.process.wait(PATIENCE) == FAILED
    drained.join(PATIENCE)
    assert_nothing_is_left(one.home)


def test_a_terminal_that_hangs_up_ends_the_demo(start: Callable[..., Demo], terminal: Terminal) -> None:
    one = start("--forks", "2", terminal=terminal.device)
    terminal.until("fork-1")
    one.process.send_signal(signal.SIGHUP)
    drained = terminal.leave()
    assert one.process.wait(PATIENCE) == FAILED
    drained.join(PATIENCE)
    assert_nothing_is_left(one.home)


async def test_a_scenario_needs_a_host_of_its_own(embedded: Home) -> None:
    async with supervisor(embedded) as running, SupervisorClient(embedded.socket) as client:
        await running.client.create(CreateRequest(name="mine", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        with pytest.raises(ScenarioError, match="the host has 1 instance already"):
            await scenario.play(client, 1)
        assert [one.name for one in await running.client.instances()] == ["mine"]
        await running.client.delete("mine")
