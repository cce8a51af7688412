"""Options of the command line: given twice they add, or are refused, and none is dropped; wrong ones are told."""

import argparse

import pytest

from forktui.cli import main
from supervisor.__main__ import main as supervisor_main
from tests.cli.conftest import Forktui
from tests.harness.programs import DONE, USAGE
from tests.harness.supervisor_process import Home, supervisor


def parsed(*arguments: str) -> argparse.Namespace:
    return main.parser().parse_args(arguments)


def test_words_of_the_kernel_command_line_add() -> None:
    assert parsed("create", "x", "--cmd", "a", "b", "--cmd", "c").cmd == ["a", "b", "c"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--socket", "/a", "--socket", "/b"),
        ("--socket", "/a", "ls", "--socket", "/b"),
        ("create", "x", "--size", "64MB", "--size", "128MB"),
        ("fork", "x", "--name", "a", "--name=b"),
        ("fork", "x", "--no-share-memory", "--share-memory"),
        ("fan-out", "x", "2", "--prefetch", "off", "--prefetch", "before_resume"),
        ("logs", "x", "--tail", "1", "--tail", "2"),
        ("create", "x", "--track-dirty-pages", "--no-track-dirty-pages"),
        ("demo", "--forks", "2", "--forks", "3"),
    ],
    ids=" ".join,
)
def test_another_value_of_the_same_option_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == USAGE
    assert "already, and may be given once" in capsys.readouterr().err


@pytest.mark.parametrize("lines", ["-1", "100001", "1e3", "", "x"])
def test_a_number_of_lines_that_nobody_can_be_asked_for_is_a_usage_error(
    lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("logs", "x", f"--tail={lines}")
    assert ended.value.code == USAGE
    assert f"{lines!r} is no number of lines from 0 to 100000" in capsys.readouterr().err


def test_the_supervisor_refuses_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        supervisor_main(["--max-layers", "3", "--max-layers", "4", "--hypervisor", "none"])
    assert ended.value.code == USAGE
    error = capsys.readouterr().err
    assert "argument --max-layers: it was given as '3' already, and may be given once" in error


def test_the_same_value_twice_drops_nothing() -> None:
    assert parsed("--socket", "/a", "ls", "--socket", "/a", "--json", "--json").socket == "/a"
    assert parsed("fork", "x", "--share-memory", "--share-memory").share_memory is True


async def test_both_words_reach_the_guest(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        words = ("--cmd", "hot_mib=4", "--cmd", "seed=7")
        assert (await forktui("create", "x", "--size", "64MB", *words))[0] == DONE
        host = await running.client.instance("x")
        files = (embedded.data / "instances" / host.id).glob("*.json")
        assert any("hot_mib=4 seed=7" in file.read_text() for file in files)
        await running.client.delete("x")
