"""Whose a path is: everything on the way to it, links and directories that others may write to."""

import os
from pathlib import Path

import pytest

from supervisor.system.trusted_paths import distrusted, distrusted_own

OTHER = 12345
ME = (os.geteuid(),)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root, who may give a file away")


@pytest.fixture
def parent(run_dir: Path) -> Path:
    (run_dir / "parent").mkdir()
    return run_dir / "parent"


@pytest.fixture
def own(parent: Path) -> Path:
    (parent / "own").mkdir()
    return parent / "own"


def reason(path: Path) -> str:
    found = distrusted(path, ME)
    return found.reason if found else ""


def test_ones_own_directory_below_the_sticky_one_of_root_is_trusted(own: Path) -> None:
    assert distrusted(own, ME) is None
    assert distrusted_own(own) is None
    assert distrusted(own / "not" / "there", ME) is None


@pytest.mark.parametrize("mode", (0o777, 0o757, 0o733, 0o770, 0o720))
def test_a_parent_that_others_may_write_to_is_not(parent: Path, own: Path, mode: int) -> None:
    parent.chmod(mode)
    told = f"{parent} can be written to by others (mode {mode:04o}): chmod go-w {parent}"
    assert reason(own) == reason(own / "socket") == told
    parent.chmod(mode | 0o1000)
    assert reason(own) == ""


@pytest.mark.parametrize("mode", (0o777, 0o1777, 0o770, 0o702))
def test_ones_own_directory_is_not_written_to_by_others_sticky_or_not(own: Path, mode: int) -> None:
    own.chmod(mode)
    found = distrusted_own(own)
    assert found is not None
    assert f"chmod go-w {own}" in found.reason


@as_root
def test_what_belongs_to_another_is_not_trusted_wherever_it_stands(parent: Path, own: Path) -> None:
    (own / "file").touch()
    for path in (own / "file", own, parent):
        os.chown(path, OTHER, OTHER)
        found = distrusted(own / "file", ME)
        assert found is not None
        assert (found.path, found.owner, found.reason) == (path, OTHER, f"{path} belongs to uid {OTHER}")
        assert distrusted(own / "file", (*ME, OTHER)) is None


@as_root
def test_links_are_trusted_as_far_as_they_and_what_they_lead_to_are(run_dir: Path, own: Path) -> None:
    for target in (own, Path("parent/../parent/own")):
        link = run_dir / "link"
        link.symlink_to(target)
        assert reason(link / "x") == ""
        os.chown(link, OTHER, OTHER, follow_symlinks=False)
        assert reason(link / "x") == f"{link} belongs to uid {OTHER}"
        link.unlink()
    link.symlink_to(own)
    os.chown(own, OTHER, OTHER)
    assert reason(link / "x") == f"{own} belongs to uid {OTHER}"


def test_a_link_is_no_directory_of_ones_own(run_dir: Path, own: Path) -> None:
    (run_dir / "link").symlink_to(own)
    found = distrusted_own(run_dir / "link")
    assert found is not None
    assert found.reason == f"{run_dir / 'link'} is a link"


def test_a_circle_of_links_ends(run_dir: Path) -> None:
    (run_dir / "a").symlink_to("b")
    (run_dir / "b").symlink_to("a")
    assert distrusted(run_dir / "a" / "x", ME) is None


@as_root
def test_a_group_that_is_its_owners_alone_may_write(parent: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the homes of systems where each user has a group."""
    import grp
    import pwd

    user = pwd.struct_passwd(("eve", "x", OTHER, OTHER, "", "/", "/bin/sh"))
    os.chown(parent, OTHER, OTHER)
    parent.chmod(0o775)
    assert distrusted(own, (*ME, OTHER)) is not None
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    for members, trusted in (([], True), (["eve"], True), (["eve", "bob"], False)):
        monkeypatch.setattr(grp, "getgrgid", lambda _, m=members: grp.struct_group(("eve", "x", OTHER, m)))
        assert (distrusted(own, (*ME, OTHER)) is None) is trusted
