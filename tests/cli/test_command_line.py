"""The command lines of both programs: what they take, what they print, where, and with which exit code."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from forktui.cli import commands, main
from forktui.client.transport import start_command
from supervisor.__main__ import main as supervisor_main
from supervisor.settings import SUPERVISOR_OPTIONS, Settings, default_run_dir
from tests.harness.checkout import ROOT
from tests.harness.programs import DONE, FAILED, USAGE, complaint, program
from tests.harness.supervisor_process import PATIENCE

PROGRAMS = {"forktui": main.main, "forktui-supervisor": supervisor_main}
VERBS = (
    "ls",
    "images",
    "image",
    "create",
    "fork",
    "checkpoint",
    "fan-out",
    "standby",
    "restore",
    "start",
    "stop",
    "detach",
    "accept",
    "delete",
    "wait",
    "cancel",
    "logs",
    "console",
)


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
        ("forktui-supervisor", ("--hypervisor", "qemu"), "--hypervisor: 'qemu' is refused: it should be 'auto', "),
        ("forktui-supervisor", ("--config", "/no/such.toml"), "/no/such.toml: no such file"),
        ("forktui-supervisor", ("--socket", "/tmp/" + "s" * 103), "107 bytes, and this one has 108"),
        ("forktui-supervisor", ("--run-dir", "/tmp/" + "s" * 80), "it may have 76 bytes"),
        ("forktui", ("ls", "--socket", "/tmp/" + "s" * 103), "107 bytes, and this one has 108"),
        ("forktui", ("demo", "--forks", "0"), "--forks: '0' is refused: it should be greater than or equal to 1"),
        ("forktui", ("create", "Not_A_Name"), "name: 'Not_A_Name' is refused: it takes lowercase letters"),
        ("forktui", ("create", "x", "--vcpus", "99"), "vcpus: 99 is refused: it should be less than or equal to 32"),
        ("forktui", ("fan-out", "x", "0"), "count: 0 is refused: it should be greater than or equal to 1"),
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
@pytest.mark.parametrize(
    "arguments", [("--x\x1b[2J\nforged",), ("--no-such\udc80",), ("--log-level", "\x1b[2J\n\u202e"), ("\x1b[2J\n",)]
)
def test_a_terminal_can_only_print_what_is_quoted_of_a_command_line(
    name: str, arguments: tuple[str, ...], environment: dict[str, str]
) -> None:
    module = "forktui" if name == "forktui" else "supervisor"
    said = program(module, environment, *arguments)
    assert said.returncode == USAGE
    assert said.stderr.replace("\n", "").isprintable()
    assert not any(line.startswith("forged") for line in said.stderr.splitlines())


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_unknown_option_is_exit_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[name](["--no-such-option"])
    assert ended.value.code == USAGE
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fork", "checkpoint", "standby", "delete", "cancel", "logs"])
def test_nobody_is_meant_by_an_empty_word(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([verb, ""])
    assert ended.value.code == USAGE
    assert "it is empty, and has to be a name, id or unique id prefix" in capsys.readouterr().err


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
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
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
