"""Where the demo is: in a temporary home, or in a data directory that was named for it, and in no other's."""

import json
from pathlib import Path

import pytest

from forktui.cli import main
from tests.harness.programs import DONE, FAILED, USAGE
from tests.harness.supervisor_process import processes_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_options")]


def contents(folder: Path) -> dict[str, bytes]:
    """Return what each file holds, and the names of the directories."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def test_as_a_table_in_a_home_that_was_named_and_stays(
    homes: list[Path], run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = run_dir / "kept"
    (data / "images").mkdir(parents=True)
    (data / "images" / "mine").write_text("kept")
    arguments = ["demo", "--headless", "--forks", "2", "--hypervisor", "embedded", "--data-dir", str(data)]
    assert main.main(arguments) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("hypervisor  embedded ")
    assert lines[-1] == "ok: every fork verified its memory"
    consoles = [path.read_text().splitlines() for path in data.glob("instances/*/console.log")]
    assert len(consoles) == 4
    assert sum("restored" in console for console in consoles) == 3
    assert not any("CORRUPT" in line for console in consoles for line in console)
    assert processes_of(data) == []
    assert (data / "images" / "mine").read_text() == "kept"


@pytest.mark.parametrize("json_output", [False, True], ids=["text", "json"])
def test_where_instances_are_already_it_does_not_even_start(
    homes: list[Path], run_dir: Path, capsys: pytest.CaptureFixture[str], json_output: bool
) -> None:
    """A supervisor would go on with what is there: finish what was half done, and say what no longer runs."""
    for half in (".new-b" + "2" * 23, "a" + "1" * 23):
        (run_dir / "kept" / "instances" / half).mkdir(parents=True)
    before = contents(run_dir)
    said = f"{run_dir / 'kept'} has 2 instances already; name an empty directory for the demo"
    options = ["--json"] if json_output else []
    assert main.main(["demo", "--headless", "--data-dir", str(run_dir / "kept"), *options]) == FAILED
    printed = capsys.readouterr()
    assert printed.err == f"forktui: {said}\n"
    assert printed.out == (f"{json.dumps({'ok': False, 'reasons': [said]})}\n" if json_output else "")
    assert contents(run_dir) == before


@pytest.mark.parametrize("place", ["environment", "file"])
def test_what_is_configured_for_a_supervisor_is_not_the_demos(
    homes: list[Path], run_dir: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Its directories, its socket and its log are left alone, whether or not anything is there."""
    configured = {name: run_dir / "configured" / name for name in ("data_dir", "run_dir", "socket", "log_file")}
    for name in ("data_dir", "run_dir"):
        configured[name].mkdir(parents=True)
    configured["log_file"].write_text("kept")
    if place == "environment":
        for name, path in configured.items():
            monkeypatch.setenv(f"FORKTUI_{name.upper()}", str(path))
    else:
        (run_dir / "empty.toml").write_text("".join(f'{name} = "{path}"\n' for name, path in configured.items()))
    before = contents(run_dir)
    assert main.main(["demo", "--headless", "--forks", "1", "--hypervisor", "embedded"]) == DONE
    assert contents(run_dir) == before
    assert len(homes) == 1


@pytest.mark.parametrize("option", ["--socket", "--run-dir"])
def test_a_place_that_the_demo_has_of_its_own_cannot_be_named(
    homes: list[Path], run_dir: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main.main([option, str(run_dir / "named"), "demo", "--headless"]) == USAGE
    assert capsys.readouterr().err == f"forktui: {option}: the demo has a host of its own; leave it out\n"
    assert not (run_dir / "named").exists()
    assert homes == []
