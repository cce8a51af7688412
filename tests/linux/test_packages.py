"""What a machine is told that cannot have what real guests are made of; and what is made of it."""

import io
import json
from pathlib import Path

import pytest

from tests.harness.firecracker import Unavailable
from tests.linux import packages
from tests.linux.cpio import archive
from tests.linux.told import Tick, ticks, without_gap


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache."""
    monkeypatch.setattr(packages, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def programs(directory: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Have no programs but these, which are shell scripts."""
    directory.mkdir()
    for name, script in scripts.items():
        (directory / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name.replace("_", "-")).chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def test_without_apt_a_skip_names_the_line_that_runs_them_elsewhere(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch)
    with pytest.raises(Unavailable, match=r"^real Linux guests: apt-get, .*docker run --rm .*\.ci/run'$"):
        packages.debian()


def test_where_apt_fails_a_skip_names_the_line_that_shows_why(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, apt_get="echo E: no network >&2; exit 100", apt_cache="", dpkg_deb="")
    with pytest.raises(Unavailable, match=r"apt-get says 'E: no network'; see: cd \S+ && \S+ -m tests.linux.packages$"):
        packages.debian()
    assert not (cache / "debian").exists()


def test_where_lists_cannot_be_fetched_a_skip_says_that(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = 'case "$*" in *update*) echo "W: Some index files failed to download." >&2;; esac'
    failing = "echo E: No packages found >&2; exit 100"
    programs(tmp_path / "bin", monkeypatch, apt_get=offline, apt_cache=failing, dpkg_deb="")
    with pytest.raises(Unavailable, match=r"^real Linux guests: W: Some index files failed to download\.; see: cd "):
        packages.debian()


def test_a_distribution_without_debians_kernel_is_named_as_that(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, apt_get="", apt_cache="", dpkg_deb="")
    with pytest.raises(Unavailable, match="linux-image-amd64, which this distribution does not have"):
        packages.debian()


def test_what_the_cache_has_is_not_asked_for_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, apt_get="exit 1", apt_cache="exit 1", dpkg_deb="exit 1")
    (cache / "debian").mkdir(parents=True)
    wanted = [*packages.GUESTS, packages.KERNEL_OF, *packages.PROGRAMS.values()]
    (cache / "debian" / "wanted.json").write_text(json.dumps(wanted))
    assert packages.debian() == packages.Debian(cache / "debian")


def test_an_archive_has_its_files_and_the_folders_that_they_are_in() -> None:
    made = archive({"init": b"#!/bin/sh\n", "a/b/c": b"12345"})
    names = [name for name, _ in _entries(made)]
    assert names.index("a") < names.index("a/b") < names.index("a/b/c")
    assert dict(_entries(made))["a/b/c"] == b"12345"
    assert {"dev/console", "init", "proc"} <= set(names)
    assert names[-1] == "TRAILER!!!"


def test_a_line_that_is_not_whole_is_no_tick() -> None:
    said = "tick 3 date 17 memory same disk 3 uuid a\r\n[ 1.0] random: x\r\ntick 4 date 18 memory sa"
    assert ticks(said) == [Tick(3, 17, "same", "3", "a")]
    assert without_gap(ticks(said + "me disk 4 uuid b\r\n"))
    assert not without_gap([Tick(number, 0, "same", "none", "") for number in (1, 2, 4)])


def _entries(made: bytes) -> list[tuple[str, bytes]]:
    found, file = [], io.BytesIO(made)
    while head := file.read(110):
        assert head.startswith(b"070701")
        size, length = int(head[54:62], 16), int(head[94:102], 16)
        name = file.read(length)[:-1].decode()
        file.seek(-file.tell() % 4, io.SEEK_CUR)
        found.append((name, file.read(size)))
        file.seek(-file.tell() % 4, io.SEEK_CUR)
    return found
