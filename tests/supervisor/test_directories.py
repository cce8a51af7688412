"""The supervisor's directories: made, checked, held by one, and not left behind by one that did not start."""

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from supervisor.daemon.directories import RefusedError, claim
from supervisor.settings import Settings

NOBODY = 65534


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder / "var" / "data", run_dir=folder / "run", socket=None)


def refusal(settings: Settings) -> str:
    with pytest.raises(RefusedError) as caught, claim(settings):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_directories_are_made_for_their_readers(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    before = os.umask(0)
    try:
        with claim(settings):
            assert mode(settings.data_dir) == 0o700
            assert mode(settings.run_dir) == 0o750
            assert mode(settings.data_dir / "lock") == 0o600
            assert (settings.data_dir / "lock").read_text() == f"{os.getpid()}\n"
    finally:
        os.umask(before)
    assert settings.data_dir.is_dir()


def test_modes_of_directories_that_were_there_are_their_owners_business(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    settings.run_dir.mkdir(mode=0o711)
    with claim(settings):
        assert mode(settings.run_dir) == 0o711


def test_a_second_supervisor_is_refused_and_the_first_one_named(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    with claim(settings):
        elsewhere = settings.model_copy(update={"run_dir": run_dir / "other"})
        message = refusal(elsewhere)
        assert f"another supervisor (pid {os.getpid()}) holds {settings.data_dir}" in message
        assert "--data-dir" in message
        assert not elsewhere.run_dir.exists()
        assert (settings.data_dir / "lock").exists()
    with claim(settings):
        pass


def test_one_directory_for_both_is_refused(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    settings.data_dir.mkdir(parents=True)
    message = refusal(settings.model_copy(update={"run_dir": settings.data_dir}))
    assert message == f"{settings.data_dir} is the data directory; name another with --run-dir"


def test_the_lock_is_not_inherited(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    with claim(settings):
        lock = settings.data_dir / "lock"
        held = [entry for entry in Path("/proc/self/fd").iterdir() if entry.resolve() == lock]
        assert len(held) == 1
        assert fcntl.fcntl(int(held[0].name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_one_that_fails_removes_what_it_made_and_nothing_else(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    with pytest.raises(RuntimeError), claim(settings):
        (settings.data_dir / "instances").mkdir()
        raise RuntimeError
    assert list(run_dir.iterdir()) == []
    with pytest.raises(RuntimeError), claim(settings):
        (settings.data_dir / "kept").write_text("x")
        raise RuntimeError
    assert [path.name for path in settings.data_dir.iterdir()] == ["kept"]
    assert not settings.run_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root, who may give a directory away")
def test_a_run_directory_of_somebody_else_is_refused(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    settings.run_dir.mkdir()
    os.chown(settings.run_dir, NOBODY, NOBODY)
    assert f"{settings.run_dir} belongs to uid {NOBODY}" in refusal(settings)
    assert not (run_dir / "var").exists()


def test_a_linked_run_directory_is_refused(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    (run_dir / "elsewhere").mkdir()
    settings.run_dir.symlink_to(run_dir / "elsewhere")
    assert "is a link" in refusal(settings)


@pytest.mark.parametrize("which", ("data_dir", "run_dir"))
@pytest.mark.parametrize("wrong", (0o777, 0o1777, 0o770))
def test_a_directory_that_others_may_write_to_is_refused(run_dir: Path, which: str, wrong: int) -> None:
    settings = settings_in(run_dir)
    folder: Path = getattr(settings, which)
    folder.mkdir(parents=True)
    folder.chmod(wrong)
    message = refusal(settings)
    assert f"{folder} can be written to by others (mode {wrong:04o}): chmod go-w {folder}" in message
    assert f"--{which.replace('_', '-')}" in message
    assert list(folder.iterdir()) == []
    folder.chmod(0o750)
    with claim(settings):
        pass


@pytest.mark.parametrize("which", ("data_dir", "run_dir"))
def test_a_directory_that_others_could_swap_is_refused_before_anything_is_made(run_dir: Path, which: str) -> None:
    parent = run_dir / "parent"
    parent.mkdir()
    parent.chmod(0o777)
    settings = settings_in(run_dir).model_copy(update={which: parent / "deep" / "own"})
    assert f"{parent} can be written to by others (mode 0777): chmod go-w {parent}" in refusal(settings)
    assert list(parent.iterdir()) == []
    parent.chmod(0o1777)
    with claim(settings):
        assert mode(parent / "deep") == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="root, who may give a directory away")
@pytest.mark.parametrize("which", ("data_dir", "run_dir"))
@pytest.mark.parametrize("depth", (0, 1))
def test_a_directory_of_somebody_else_or_below_one_is_refused(run_dir: Path, which: str, depth: int) -> None:
    settings = settings_in(run_dir).model_copy(update={which: run_dir / "his" / "own"})
    folder: Path = getattr(settings, which)
    folder.mkdir(parents=True)
    others = (folder, folder.parent)[depth]
    os.chown(others, NOBODY, NOBODY)
    assert f"{others} belongs to uid {NOBODY}" in refusal(settings)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ("instances", "templates"))
def test_what_is_in_the_data_directory_is_closed_to_others(run_dir: Path, name: str) -> None:
    """An earlier version made it as the umask had it."""
    settings = settings_in(run_dir)
    inside = settings.data_dir / name
    inside.mkdir(parents=True)
    inside.chmod(0o777)
    with claim(settings):
        assert stat.S_IMODE(inside.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ("instances", "templates"))
def test_what_somebody_else_has_put_into_the_data_directory_is_refused(run_dir: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user's directory takes root")
    settings = settings_in(run_dir)
    inside = settings.data_dir / name
    inside.mkdir(parents=True)
    os.chown(inside, 12345, -1)
    assert str(inside) in refusal(settings)
    inside.rmdir()
    inside.symlink_to(run_dir)
    os.chown(inside, 12345, -1, follow_symlinks=False)
    assert str(inside) in refusal(settings)


@pytest.mark.parametrize("name", ("schema", "run_dir"))
def test_what_is_no_note_of_a_supervisors_is_told_and_not_waited_for(run_dir: Path, name: str) -> None:
    settings = settings_in(run_dir)
    settings.data_dir.mkdir(parents=True)
    note = settings.data_dir / name
    os.mkfifo(note)
    with pytest.raises(OSError, match="it is a FIFO, and no file") as told, claim(settings):
        pass
    assert told.value.filename == str(note)
    note.unlink()
    note.write_text("1" * 5000)
    assert f"{note}: it has more than 4097 bytes; remove it" in refusal(settings)


def test_a_socket_may_lie_in_a_sticky_directory_of_root_and_in_no_other_that_others_write_to(run_dir: Path) -> None:
    (run_dir / "open").mkdir()
    settings = settings_in(run_dir).model_copy(update={"socket": run_dir / "open" / "s.sock"})
    (run_dir / "open").chmod(0o777)
    assert f"chmod go-w {run_dir / 'open'}" in refusal(settings)
    (run_dir / "open").chmod(0o1777)
    with claim(settings):
        pass


@pytest.mark.parametrize("umask", (0, 0o777))
def test_modes_are_the_same_whatever_the_umask(run_dir: Path, umask: int) -> None:
    settings = settings_in(run_dir)
    before = os.umask(umask)
    try:
        with claim(settings) as held:
            assert mode(settings.data_dir.parent) == 0o755
            assert (mode(settings.data_dir), mode(settings.run_dir)) == (0o700, 0o750)
            assert mode(settings.data_dir / "lock") == mode(settings.run_dir / "lock") == 0o600
            settings.run_dir.rename(run_dir / "gone")
            held.mend()
            assert mode(settings.run_dir) == 0o750
            assert mode(settings.run_dir / "pages") == 0o750
    finally:
        os.umask(before)


def test_locks_of_others_on_the_directories_do_not_block_the_start(run_dir: Path) -> None:
    """Whoever may read a directory may lock it."""
    settings = settings_in(run_dir)
    for folder in (settings.data_dir, settings.run_dir):
        folder.mkdir(mode=0o755, parents=True)
    with contextlib.ExitStack() as stack:
        for folder in (settings.data_dir, settings.run_dir, run_dir):
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with claim(settings):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="root, who may give a file away")
def test_a_lock_file_of_somebody_else_is_refused(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    settings.run_dir.mkdir(mode=0o755)
    (settings.run_dir / "lock").touch()
    os.chown(settings.run_dir / "lock", NOBODY, NOBODY)
    with pytest.raises(OSError, match=f"it belongs to uid {NOBODY}"), claim(settings):
        pass


def test_a_lock_file_is_nobody_elses_to_open(run_dir: Path) -> None:
    settings = settings_in(run_dir)
    settings.run_dir.mkdir(mode=0o755)
    (settings.run_dir / "lock").touch(mode=0o644)
    with claim(settings):
        assert mode(settings.run_dir / "lock") == 0o600


def test_a_file_in_place_of_a_directory_is_refused(run_dir: Path) -> None:
    (run_dir / "var").write_text("")
    message = refusal(settings_in(run_dir))
    assert message == f"{run_dir}/var/data cannot be made: Not a directory; name another directory with --data-dir"
    assert not (run_dir / "run").exists()


@pytest.mark.parametrize("seconds", [7200, -7200])
def test_a_run_directory_of_another_time_is_settled_by_the_second_look(run_dir: Path, seconds: int) -> None:
    """Also in the future, where its time is of before the clock was set back."""
    with claim(settings_in(run_dir)) as held:
        held.mend()
        then = time.time() + seconds
        for directory in (held.path, *(one for one in held.path.iterdir() if one.is_dir())):
            os.utime(directory, (then, then))
        assert held.changed()
        assert not held.changed()
        (held.path / "new").touch()
        assert held.changed()
