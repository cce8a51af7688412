"""The command lines of both programs: what they print, where, and with which exit code."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from forktui.cli import commands, main
from forktui.client.api import start_command
from supervisor.__main__ import main as supervisor_main
from supervisor.models import CreateRequest, State
from supervisor.settings import SUPERVISOR_OPTIONS, Settings, default_run_dir
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

Forktui = Callable[..., Awaitable[tuple[int, str, str]]]

DONE, FAILED, USAGE = 0, 1, 2
PROGRAMS = {"forktui": main.main, "forktui-supervisor": supervisor_main}
VERBS = (
    "ls",
    "images",
    "create",
    "fork",
    "checkpoint",
    "fan-out",
    "standby",
    "restore",
    "start",
    "stop",
    "detach",
    "delete",
    "logs",
)


@pytest.fixture
def environment(run_dir: Path) -> dict[str, str]:
    """Return an environment without this host's options and with a home of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FORKTUI_", "XDG_"))}
    return own | {
        "HOME": str(run_dir),
        "FORKTUI_DATA_DIR": str(run_dir / "data"),
        "FORKTUI_RUN_DIR": str(run_dir / "run"),
    }


@pytest.fixture
def home(run_dir: Path) -> Iterator[Home]:
    made = Home(run_dir)
    yield made
    made.kill_everything()


@pytest.fixture
def forktui(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Forktui:
    """Return `forktui` as a function of its arguments: exit code, standard output, standard error."""
    monkeypatch.setattr(os, "environ", environment)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main.main, arguments)
        return code, *capsys.readouterr()

    return run


def program(module: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs without a terminal."""
    return subprocess.run(
        (sys.executable, "-P", "-m", module, *arguments),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def complaint(result: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one line that a program ended with."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def imported_by(environment: dict[str, str], *arguments: str) -> set[str]:
    """Return the top-level packages that a run of `forktui` imports."""
    script = (
        "import sys; from forktui.cli.main import main\n"
        "try: main(sys.argv[1:])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        (sys.executable, "-P", "-c", script, *arguments),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return {name.partition(".")[0] for name in result.stderr.split()}


@pytest.mark.parametrize("arguments", [("--help",), ("ls",)], ids=" ".join)
def test_what_draws_nothing_imports_no_textual(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    imported = imported_by(environment, *arguments)
    assert "argparse" in imported
    assert "textual" not in imported


def test_help_names_every_verb_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (
        ("forktui", (*VERBS, "demo")),
        ("forktui-supervisor", [f"--{option.replace('_', '-')}" for option in SUPERVISOR_OPTIONS]),
    ):
        with pytest.raises(SystemExit) as ended:
            PROGRAMS[name](["--help"])
        assert ended.value.code in (None, DONE)
        text = capsys.readouterr().out
        assert [word for word in words if f" {word} " not in text] == []
    assert [command.name for command in commands.COMMANDS] == list(VERBS)


def test_every_option_is_on_some_command_line() -> None:
    on = {*main.CLIENT_OPTIONS, *main.DASHBOARD_OPTIONS, *main.DEMO_OPTIONS, *SUPERVISOR_OPTIONS}
    assert on == set(Settings.model_fields)


@pytest.mark.parametrize("name", PROGRAMS)
def test_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[name](["--version"])
    assert ended.value.code in (None, DONE)
    assert capsys.readouterr().out.startswith(f"{name} ")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("forktui-supervisor", ("--hypervisor", "qemu"), "--hypervisor: 'qemu' is not allowed: should be 'auto', "),
        ("forktui-supervisor", ("--config", "/no/such.toml"), "/no/such.toml: no such file"),
        ("forktui-supervisor", ("--socket", "/tmp/" + "s" * 103), "107 bytes, and this one has 108"),
        ("forktui-supervisor", ("--run-dir", "/tmp/" + "s" * 80), "it may have 76 bytes"),
        ("forktui", ("ls", "--socket", "/tmp/" + "s" * 103), "107 bytes, and this one has 108"),
        ("forktui", ("demo", "--forks", "0"), "--forks: '0' is not allowed: should be greater than or equal to 1"),
        ("forktui", ("create", "Not_A_Name"), "name 'Not_A_Name' is refused: it takes lowercase letters"),
        ("forktui", ("create", "x", "--vcpus", "99"), "vcpus 99 is refused: it should be less than or equal to 32"),
        ("forktui", ("fan-out", "x", "0"), "count 0 is refused: it should be greater than or equal to 1"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_2(
    name: str,
    arguments: tuple[str, ...],
    said: str,
    environment: dict[str, str],
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "environ", environment)
    assert PROGRAMS[name](arguments) == USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.startswith(f"{name}: ")
    assert printed.err.count("\n") == 1
    assert list(run_dir.iterdir()) == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_unknown_option_is_exit_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[name](["--no-such-option"])
    assert ended.value.code == USAGE
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


def test_without_a_supervisor_a_verb_says_what_to_do(environment: dict[str, str], run_dir: Path) -> None:
    line = complaint(program("forktui", environment, "ls"), FAILED)
    assert f"{run_dir}/run/supervisor.sock: no supervisor listens there" in line
    assert line.endswith(f"start one with: forktui-supervisor --run-dir {run_dir}/run --data-dir DATA_DIR\n")


@pytest.mark.parametrize(
    ("socket", "command"),
    [
        (default_run_dir() / "supervisor.sock", "forktui-supervisor"),
        (Path("/a b/supervisor.sock"), "forktui-supervisor --run-dir '/a b' --data-dir DATA_DIR"),
        (Path("/a/s.sock"), "forktui-supervisor --socket /a/s.sock --run-dir RUN_DIR --data-dir DATA_DIR"),
    ],
    ids=["default", "of a run directory", "elsewhere"],
)
def test_a_supervisor_is_not_told_to_start_on_directories_of_another(socket: Path, command: str) -> None:
    assert start_command(socket) == command


INTERRUPTED_IMPORT = """
import importlib, importlib.abc, os, signal, sys

# A shell starts what it puts in the background with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "forktui.client.api":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
module, _, function = sys.argv[1].partition(":")
sys.exit(getattr(importlib.import_module(module), function)(["demo", "--headless"]))
"""


def test_interrupted_while_it_starts_it_says_so_in_one_line(environment: dict[str, str]) -> None:
    installed = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    ended = subprocess.run(
        (sys.executable, "-P", "-c", INTERRUPTED_IMPORT, installed["forktui"]),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert complaint(ended, FAILED) == "forktui: interrupted\n"


@pytest.mark.parametrize("arguments", [(), ("demo",)], ids=["dashboard", "demo"])
def test_without_a_terminal_nothing_is_drawn_and_nothing_started(
    arguments: tuple[str, ...], environment: dict[str, str], run_dir: Path
) -> None:
    line = complaint(program("forktui", environment, *arguments), USAGE)
    assert "must be a terminal" in line
    assert "forktui ls" in line
    assert list(run_dir.iterdir()) == []


def test_a_supervisor_without_the_firecracker_it_must_have_is_refused(
    environment: dict[str, str], run_dir: Path
) -> None:
    missing = run_dir / "no-firecracker"
    line = complaint(
        program("supervisor", environment, "--hypervisor", "firecracker", "--firecracker", str(missing)), FAILED
    )
    assert str(missing) in line
    assert list(run_dir.iterdir()) == []


async def test_a_data_directory_that_another_supervisor_holds(home: Home, environment: dict[str, str]) -> None:
    async with supervisor(home) as running:
        line = complaint(program("supervisor", environment, "--run-dir", str(home.root / "other")), FAILED)
        assert f"another supervisor (pid {running.process.pid}) holds {home.data}" in line
        assert not (home.root / "other").exists()


async def test_a_socket_that_another_supervisor_holds(home: Home, environment: dict[str, str]) -> None:
    async with supervisor(home) as running:
        other = ("--data-dir", str(home.root / "other"), "--run-dir", str(home.root / "o"))
        line = complaint(program("supervisor", environment, *other, "--socket", str(home.socket)), FAILED)
        assert f"another supervisor listens on {home.socket}" in line
        assert not (home.root / "other").exists()
        await running.client.health()


def test_a_socket_that_nobody_listens_on_any_more_is_taken_over(home: Home, environment: dict[str, str]) -> None:
    home.run.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.socket))
    process = subprocess.Popen(home.command(), env=environment, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().decode() == f"ready {home.socket}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == DONE
    assert not home.socket.exists()


def test_something_else_where_the_socket_should_be(environment: dict[str, str], run_dir: Path) -> None:
    (run_dir / "run").mkdir()
    (run_dir / "run" / "supervisor.sock").write_text("mine")
    line = complaint(program("supervisor", environment, "--hypervisor", "embedded"), FAILED)
    assert "supervisor.sock exists and is not a socket" in line
    assert (run_dir / "run" / "supervisor.sock").read_text() == "mine"
    assert not (run_dir / "data").exists()


async def test_the_verbs_do_what_they_say(home: Home, forktui: Forktui) -> None:
    async def done(*arguments: str) -> str:
        code, output, errors = await forktui(*arguments)
        assert (code, errors) == (DONE, "")
        return output

    async with supervisor(home) as running:
        assert (await done("create", "source", "--size", "64MB", "--cmd", "hot_mib=4")).split()[0] == "source"
        await running.client.wait("source", State.RUNNING, PATIENCE)
        made, paused = (await done("checkpoint", "source", "--name", "then")).splitlines()
        assert made == "then Standby"
        assert paused.startswith("source was paused for ")
        assert await done("delete", "then") == ""
        assert await done("standby", "source") == "source Standby\n"
        assert await done("fork", "source", "--name", "one") == "one Running\n"
        assert await done("fan-out", "source", "2", "--name-prefix", "many") == "many-1 Running\nmany-2 Running\n"
        (listed,) = [one for one in json.loads(await done("ls", "--json")) if one["name"] == "source"]
        assert (listed["fork_count"], listed["mem_locked"], listed["state"]) == (3, True, "Standby")
        assert listed["template"]["instance_id"] == listed["id"]
        assert listed["template"].keys() >= {"recorded_pages", "sampled_pages", "precision", "wasted_bytes"}
        assert [line.split()[0] for line in (await done("ls")).splitlines()] == [
            "NAME",
            "source",
            "one",
            "many-1",
            "many-2",
        ]
        assert "restored" in await done("logs", "one")
        code, output, errors = await forktui("restore", "source")
        assert (code, output) == (FAILED, "")
        assert "mem_locked by 3 share_memory forks (one, many-1, many-2)" in errors
        code, output, errors = await forktui("delete", "one", "no-such-fork", "many-1", "many-2")
        assert (code, output) == (FAILED, "")
        assert "no-such-fork" in errors
        assert errors.count("\n") == 1
        assert await done("restore", "source") == "source Running\n"
        assert await done("stop", "source") == "source Stopped\n"
        assert (await done("start", "source")).startswith("source ")
        assert await done("delete", "source") == ""


async def test_a_tree_is_deleted_after_a_look_at_what_would_go(home: Home, forktui: Forktui) -> None:
    async with supervisor(home) as running:
        assert (await forktui("create", "source", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        await running.client.wait("source", State.RUNNING, PATIENCE)
        assert (await forktui("standby", "source"))[0] == DONE
        assert (await forktui("fan-out", "source", "2"))[0] == DONE
        code, output, errors = await forktui("delete", "source", "--dry-run")
        assert (code, output) == (FAILED, "")
        assert "or give --cascade to delete them too" in errors
        code, output, errors = await forktui("delete", "source", "--cascade", "--dry-run")
        assert (code, errors) == (DONE, "")
        lines = [line.split() for line in output.splitlines()]
        assert [line[0] for line in lines] == ["NAME", "source-1", "source-2", "source", "total"]
        assert lines[-1][1:3] == ["2", "running"]
        plan = json.loads((await forktui("delete", "source", "--cascade", "--dry-run", "--json"))[1])
        assert plan["disk_bytes"] == sum(one["disk_bytes"] for one in plan["deletions"]) > 4 << 20
        assert await forktui("delete", "source", "--cascade") == (DONE, "", "")
        assert json.loads((await forktui("ls", "--json"))[1]) == []


async def test_several_instances_are_one_json_array_and_one_is_an_object(home: Home, forktui: Forktui) -> None:
    async with supervisor(home) as running:
        for name in ("one", "two"):
            assert (await forktui("create", name, "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
            await running.client.wait(name, State.RUNNING, PATIENCE)
        code, output, errors = await forktui("standby", "one", "no-such-vm", "two", "--json")
        assert (code, errors.count("\n")) == (FAILED, 1)
        assert [(made["name"], made["state"]) for made in json.loads(output)] == [
            ("one", "Standby"),
            ("two", "Standby"),
        ]
        assert json.loads((await forktui("restore", "one", "--json"))[1])["name"] == "one"
        plans = json.loads((await forktui("delete", "one", "two", "--dry-run", "--json"))[1])
        assert [plan["deletions"][0]["name"] for plan in plans] == ["one", "two"]
        assert (await forktui("restore", "no", "none", "--json"))[:2] == (FAILED, "[]\n")
        assert await forktui("delete", "one", "two", "--json") == (DONE, "", "")


async def test_a_dry_run_of_what_does_not_fit_says_what_would(home: Home, forktui: Forktui) -> None:
    async with supervisor(home) as running:
        assert (await forktui("create", "source", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        await running.client.wait("source", State.RUNNING, PATIENCE)
        assert (await forktui("standby", "source"))[0] == DONE
        # A real limit on the real process: room for some forks, and for the requests of this test.
        limit = psutil.Process(running.process.pid).num_fds() + 40
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, 20000))
        code, output, errors = await forktui("fan-out", "source", "50", "--dry-run")
        assert code == FAILED
        assert "RESOURCE" in output
        refusal = r"forktui: source: a fan-out of 50 does not fit: up to (\d+) \(descriptors\); "
        found = re.fullmatch(refusal + r"ask for at most \1, or give --force\n", errors)
        assert found, errors
        assert (await forktui("fan-out", "source", found[1], "--dry-run"))[::2] == (DONE, "")
        assert (await forktui("fan-out", "source", "50", "--dry-run", "--force"))[::2] == (DONE, "")
        assert (await forktui("delete", "source"))[0] == DONE


async def test_what_the_supervisor_refuses_is_one_line_and_exit_1(home: Home, forktui: Forktui) -> None:
    async with supervisor(home) as running:
        (home.data / "images" / "broken").mkdir(parents=True)
        (home.data / "images" / "broken" / "vm.json").write_text("{")
        assert (await forktui("create", "x", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        await running.client.wait("x", State.RUNNING, PATIENCE)
        for arguments, said in (
            (("create", "y", "--image", "no-such-image"), "no-such-image"),
            (("create", "y", "--image", "broken"), "image broken: "),
            (("create", "y", "--size", "1000TB"), "size 1000TB is refused"),
            (("create", "y", "--size", "heavy"), "size 'heavy' is refused"),
            (("create", "x"), "x"),
            (("fork", "x"), "x: fork refused"),
            (("fork", "x", "--no-share-memory"), "or give --from-running for a copy"),
            (
                ("logs", "no-such-vm"),
                "no-such-vm: no instance has this id, name or unique id prefix; `forktui ls` lists",
            ),
        ):
            code, output, errors = await forktui(*arguments)
            assert (code, output) == (FAILED, ""), arguments
            assert errors.startswith("forktui: ")
            assert errors.count("\n") == 1
            assert said in errors
        assert (await forktui("delete", "x"))[0] == DONE
        assert json.loads((await forktui("ls", "--json"))[1]) == []


async def test_vms_go_on_without_their_supervisor(home: Home) -> None:
    async with supervisor(home) as running:
        await running.client.create(CreateRequest(name="x", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        pid = (await running.client.instance("x")).vmm_pid
    assert pid is not None
    vmm = psutil.Process(pid)
    assert vmm.status() != psutil.STATUS_ZOMBIE
    assert not home.socket.exists()
    async with supervisor(home) as running:
        again = await running.client.instance("x")
        assert again.vmm_pid == pid
        await running.client.delete("x")
    # Its parent, which has to reap it, is gone; it is the init process's to do so, some time.
    assert not vmm.is_running() or vmm.status() == psutil.STATUS_ZOMBIE
