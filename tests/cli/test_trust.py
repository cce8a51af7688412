"""Whose socket the client speaks to: another user who listens where a supervisor is looked for is told nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forktui.client.api import SupervisorClient, SupervisorUnreachableError
from supervisor.settings import SettingsError, load_settings
from tests.harness.programs import FAILED, complaint, program
from tests.harness.squatter import OTHER, squatter
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root, to become another user")
NAMED = f"or where it is that user's supervisor that you mean, say so with --supervisor-user {OTHER}"


@pytest.fixture
def open_dir(run_dir: Path) -> Path:
    """Return a directory of root's in which everybody can make a socket, as in /tmp."""
    run_dir.chmod(0o1777)
    return run_dir


def his_directory(folder: Path) -> tuple[Path, str]:
    made = folder / "forktui-0"
    made.mkdir()
    os.chown(made, OTHER, OTHER)
    return made / "s.sock", f"{made} belongs to uid {OTHER}; name another socket with --socket, {NAMED}"


def below_his_directory(folder: Path) -> tuple[Path, str]:
    his, told = his_directory(folder)
    (his.parent / "forktui").mkdir()
    (his.parent / "forktui").chmod(0o1777)
    return his.parent / "forktui" / "s.sock", told


def everybodys_directory(folder: Path) -> tuple[Path, str]:
    made = folder / "run"
    made.mkdir()
    made.chmod(0o777)
    return made / "s.sock", f"{made} can be written to by others (mode 0777): chmod go-w {made}; name another socket"


def his_socket(folder: Path) -> tuple[Path, str]:
    return folder / "s.sock", f"{folder / 's.sock'} belongs to uid {OTHER}; name another socket with --socket, {NAMED}"


SQUATS = (his_directory, below_his_directory, everybodys_directory, his_socket)


@as_root
@pytest.mark.parametrize("squat", SQUATS)
@pytest.mark.parametrize("arguments", (("delete", "web"), ("ls",), ("logs", "web")), ids=" ".join)
def test_not_one_byte_is_sent_to_another_user(
    open_dir: Path,
    environment: dict[str, str],
    squat: Callable[[Path], tuple[Path, str]],
    arguments: tuple[str, ...],
) -> None:
    path, told = squat(open_dir)
    with squatter(path) as other:
        line = complaint(program("forktui", environment, *arguments, "--socket", str(path)), FAILED)
    assert line.startswith(f"forktui: {path}: {told}")
    assert other.said == ""


@as_root
def test_a_link_that_another_user_has_made_is_not_followed(open_dir: Path, environment: dict[str, str]) -> None:
    link = open_dir / "link"
    with squatter(open_dir / "his.sock", link=link) as other:
        line = complaint(program("forktui", environment, "delete", "web", "--socket", str(link)), FAILED)
    assert f"{link} belongs to uid {OTHER}" in line
    assert other.said == ""


@as_root
def test_a_socket_that_was_replaced_after_the_look_is_known_by_its_peer(
    open_dir: Path, environment: dict[str, str]
) -> None:
    path = open_dir / "s.sock"
    with squatter(path) as other:
        os.chown(path, 0, 0)
        line = complaint(program("forktui", environment, "delete", "web", "--socket", str(path)), FAILED)
    assert line == (f"forktui: {path}: who answers there is uid {OTHER}; name another socket with --socket, {NAMED}\n")
    assert other.said == ""


@as_root
@pytest.mark.parametrize("how", ("option", "variable", "file"))
def test_the_user_that_is_named_is_spoken_to(open_dir: Path, environment: dict[str, str], how: str) -> None:
    path, _ = his_directory(open_dir)
    (open_dir / "forktui.toml").write_text(f"supervisor_user = {OTHER}\n")
    given = {"option": ("--supervisor-user", str(OTHER)), "file": ("--config", str(open_dir / "forktui.toml"))}
    if how == "variable":
        environment["FORKTUI_SUPERVISOR_USER"] = str(OTHER)
    with squatter(path) as other:
        said = program("forktui", environment, "ls", "--socket", str(path), *given.get(how, ()))
    assert (said.returncode, said.stderr) == (0, "")
    assert other.said.startswith("GET /instances ")


@as_root
async def test_another_user_than_the_one_that_is_named_is_not_spoken_to(open_dir: Path) -> None:
    path, _ = his_directory(open_dir)
    with squatter(path) as other:
        async with SupervisorClient(path, OTHER + 1) as client:
            with pytest.raises(SupervisorUnreachableError, match=f"belongs to uid {OTHER}"):
                await client.delete("web")
    assert other.said == ""


@as_root
def test_the_run_directory_of_another_users_session_is_not_trusted(open_dir: Path, environment: dict[str, str]) -> None:
    """As after `su` without `-`, which leaves XDG_RUNTIME_DIR as it was."""
    path, _ = his_directory(open_dir)
    del environment["FORKTUI_RUN_DIR"]
    run = "import os, sys\nfrom forktui.cli.main import main\nimport forktui.client.transport, encodings.idna\n"
    run += f"os.setgroups([]); os.setgid({OTHER + 1}); os.setuid({OTHER + 1})\nsys.exit(main(['delete', 'web']))"
    (path.parent / "forktui").mkdir()
    (path.parent / "forktui").chmod(0o1777)
    with squatter(path.parent / "forktui" / "supervisor.sock") as other:
        ended = subprocess.run(
            (sys.executable, "-P", "-c", run),
            env={**environment, "XDG_RUNTIME_DIR": str(path.parent)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert (ended.returncode, ended.stdout) == (FAILED, "")
    assert f"{path.parent} belongs to uid {OTHER}" in ended.stderr
    assert other.said == ""


async def test_a_peer_that_this_user_namespace_has_no_uid_for_is_not_trusted(
    embedded: Home, environment: dict[str, str]
) -> None:
    """There every user who is not mapped has one uid, the client's own among them."""
    namespace = ("unshare", "--user")
    if subprocess.run((*namespace, "true"), capture_output=True).returncode:  # noqa: ASYNC221
        pytest.skip("user namespaces")
    async with supervisor(embedded):
        ended = subprocess.run(  # noqa: ASYNC221
            (*namespace, sys.executable, "-P", "-m", "forktui", "ls", "--socket", str(embedded.socket)),
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert (ended.returncode, ended.stdout) == (FAILED, "")
    assert "may be anybody of another user namespace" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_user_is_named_by_name_or_uid() -> None:
    assert load_settings({"supervisor_user": "root"}).supervisor_user == 0
    assert load_settings({"supervisor_user": str(OTHER)}).supervisor_user == OTHER
    for wrong in ("no-such-user", "-1", "4294967295", "x\0y"):
        with pytest.raises(SettingsError, match="--supervisor-user: ") as caught:
            load_settings({"supervisor_user": wrong})
        assert str(caught.value).isprintable()
