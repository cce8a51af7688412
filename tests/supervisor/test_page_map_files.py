"""What page servers make and set aside beside their page maps goes with the instance, or is swept after a crash."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from supervisor.host.host import Host
from supervisor.models import CreateRequest, ForkRequest, State
from supervisor.runtime.orphans import sweep_run_directory
from supervisor.store.layout import Layout
from supervisor.store.registry import new_id
from supervisor.uffd.map_files import NewMapFile, remove_page_map
from tests.harness.opened_host import opened_host
from tests.harness.page_maps import page_map_at, put_back
from tests.harness.supervisor_process import PATIENCE, Home

Verb = Callable[[Host], Awaitable[object]]
ENDS: dict[str, Verb] = {
    "stop": lambda host: host.stop("fork"),
    "standby": lambda host: host.standby("fork"),
    "detach": lambda host: host.detach("fork"),
    "delete": lambda host: host.delete("fork"),
}


def replace(path: Path) -> None:
    """Put a file of somebody's in the place of a page map."""
    path.unlink()
    path.write_bytes(b"X" * 4096)


def interrupted(path: Path) -> None:
    """Leave what a supervisor leaves that is killed before a map is whole."""
    os.close(NewMapFile(path).descriptor)


@pytest.mark.parametrize("end", ENDS)
async def test_what_was_set_aside_goes_with_the_page_map(embedded: Home, end: str) -> None:
    async with opened_host(embedded) as host:
        await host.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=1")))
        await host.queries.wait("source", State.RUNNING, PATIENCE)
        await host.standby("source")
        fork = await host.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        pages = embedded.run / "pages"
        for number in (1, 2):
            replace(pages / f"{fork.id}.map")
            await host.put_back_run_files()
            assert len(list(pages.glob("*.aside.*"))) == number
        await ENDS[end](host)
        assert list(pages.iterdir()) == []


def beside(path: Path) -> set[Path]:
    """Make a page map, and return what there may be beside it: a directory, a file, and one that is not whole."""
    path.mkdir()
    pages = page_map_at(path, 4096, 10)
    replace(path)
    put_back(pages, path)
    pages.close()
    whole = path.rename(path.with_name("whole"))
    interrupted(path)
    whole.rename(path)
    return set(path.parent.glob(f"{path.name}?*"))


def test_all_that_is_beside_a_page_map_is_removed_with_it_but_a_directory_of_somebodys(tmp_path: Path) -> None:
    one, other = tmp_path / "one.map", tmp_path / "other.map"
    made, kept = beside(one), beside(other)
    assert len(made) == len(kept) == 3
    remove_page_map(one)
    (directory,) = filter(Path.is_dir, made)
    assert set(tmp_path.iterdir()) == {directory, other, *kept}


def test_a_start_sweeps_what_is_beside_a_page_map_that_is_not_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path)
    layout.page_maps.mkdir()
    gone, runs, never_whole = (layout.page_map(new_id()) for _ in range(3))
    made, kept = beside(gone), beside(runs)
    interrupted(never_whole)
    foreign = runs.with_name(f"{gone.name}.bak")
    foreign.touch()
    sweep_run_directory(layout, {runs})
    (directory,) = filter(Path.is_dir, made)
    assert set(layout.page_maps.iterdir()) == {directory, runs, foreign, *kept}
