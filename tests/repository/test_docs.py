"""The commands in docs/: each is one that the programs understand."""

import re
import shlex
from pathlib import Path

import pytest

from forktui.cli import main
from supervisor.settings import SUPERVISOR_OPTIONS, Settings
from tests.harness.checkout import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of ours in the shell blocks of a page, without comments and pipes."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part for line in lines for part in re.split(r"&&|\||;", line.partition("#")[0])]
    words = [shlex.split(part) for part in parts if re.match(r"\s*forktui\b", part)]
    return [[word for word in one if not re.match(r"[<>]", word)] for one in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    for program, *words in commands(page.read_text()):
        if program == "forktui":
            main.parser().parse_args(words)
        else:
            names = [word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")]
            assert program == "forktui-supervisor"
            assert set(names) <= set(SUPERVISOR_OPTIONS)
            Settings(**dict(zip(names, words[1::2], strict=True)))  # type: ignore[arg-type]


def test_there_are_commands_to_be_understood() -> None:
    assert sum(len(commands(page.read_text())) for page in PAGES) > 10
