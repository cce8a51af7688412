"""What holds for the whole repository: checkers are content, the README is right, and nothing names this machine."""

import re
import tomllib
from pathlib import Path

import pytest

from supervisor.settings import Settings
from tests.harness.checkout import PACKAGES, ROOT, run, tool

FOREIGN_PATHS = re.compile(r"(?<![\w/.])/(?:work|root|tmp/dev|tmp/fc|opt/wheels|opt/pypi)\b")
"""Directories of machines that this is developed on; what a user has is /tmp, /run, /etc, /var, /usr and a home."""
HOSTS_IN_LOCK = re.compile(r"://|index-url|find-links|file:|@")


def tracked_texts() -> dict[str, str]:
    """Return the texts of the files that are, or are to be, in the repository."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard")
    if listed.returncode != 0:
        pytest.skip("a git checkout")
    texts = {}
    for name in listed.stdout.splitlines():
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in content:
            texts[name] = content.decode("utf-8")
    return texts


def shell_lines(text: str) -> list[str]:
    """Return the command lines in a document's `sh` blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",)],
    ids=" ".join,
)
def test_a_checker_finds_nothing(command: tuple[str, ...]) -> None:
    name, *arguments = command
    result = run(tool(name), *arguments)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_readme_begins_with_the_two_commands() -> None:
    demo, tests = shell_lines((ROOT / "README.md").read_text())[:2]
    environment = "python3 -m venv .venv && .venv/bin/pip install -q -c requirements.lock "
    assert demo == f"{environment}. && .venv/bin/forktui demo"
    assert tests == f"{environment}-e '.[test]' && .venv/bin/pytest"


def test_ci_runs_the_readmes_test_command() -> None:
    command = shell_lines((ROOT / "README.md").read_text())[1]
    script = (ROOT / ".ci" / "run").read_text()
    assert script.splitlines()[-1] == command
    assert "set -euo pipefail" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_readme_lists_every_option() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Options\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(field.alias or name for name, field in Settings.model_fields.items())


def test_what_the_readme_links_to_is_there() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert "screenshots/forktui.svg" in targets
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_the_lock_names_versions_and_no_host() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if HOSTS_IN_LOCK.search(line)] == []
    assert all(re.match(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; .*)?$", line) for line in lines)
    locked = {line.partition("==")[0] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower() for requirement in wanted}
    assert names <= locked


def test_nothing_names_a_path_of_a_machine_it_was_written_on() -> None:
    this = Path(__file__).relative_to(ROOT).as_posix()
    texts = {name: text for name, text in tracked_texts().items() if name != this}
    assert {name: found for name, text in texts.items() if (found := FOREIGN_PATHS.findall(text))} == {}


def test_every_file_that_contributing_names_is_there() -> None:
    named = set(re.findall(r"`([\w/.]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 30
    listed = [path.as_posix() for tree in (*PACKAGES, "tests") for path in (ROOT / tree).rglob("*.py")]
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in listed)] == []
