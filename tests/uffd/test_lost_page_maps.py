"""What a page server has in the run directory, removed or spoiled: put back by it, or made anew where that is safe."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.errors import PageServerError
from supervisor.runtime.attaching import listener_for
from supervisor.uffd.handle import PageServer, Policy
from supervisor.uffd.page_map import ABSENT, REMOVED, ZERO, PageMapReader
from supervisor.uffd.putting_back import listen_again
from supervisor.vmm.inotify import creations, until_listening
from tests.harness.held import is_held
from tests.harness.page_maps import page_map_at, put_back
from tests.harness.page_server_template import PAGE, PAGES, Template
from tests.harness.waiting import TIMEOUT

pytestmark = pytest.mark.usefixtures("userfaultfd")


def removed(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    os.truncate(path, 5000)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def overwritten(path: Path) -> None:
    path.write_bytes(b"X" * path.stat().st_size)


def replaced_by_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "kept").write_text("somebody's")


def replaced_by_a_link(path: Path) -> None:
    whole = path.read_bytes()
    path.unlink()
    target = path.with_name("elsewhere")
    target.write_bytes(whole)
    path.symlink_to(target)


def replaced_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def its_mappings_spoiled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2048)
        file.write(b"\xff" * 64)


def its_mappings_moved(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2048 + 8)
        file.write(b"\1")


def its_pages_spoiled(path: Path) -> None:
    """As if all were there, of which those that are not would count as given back, and be zeros."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\1" * PAGES)


SPOILERS = [
    removed,
    truncated,
    emptied,
    overwritten,
    replaced_by_a_directory,
    replaced_by_a_link,
    replaced_by_a_fifo,
    its_mappings_spoiled,
    its_mappings_moved,
    its_pages_spoiled,
]
Spoiler = Callable[[Path], None]


async def killed(server: PageServer) -> None:
    server.kill()
    await server.exited


@pytest.mark.parametrize("spoil", SPOILERS)
async def test_a_map_that_is_lost_with_its_page_server_is_made_anew_for_a_guest_that_gives_nothing_back(
    template: Template, spoil: Spoiler
) -> None:
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one")
    await fork.do("walk", 0, 200)
    await fork.do("write", 190, 200, expect="written")
    await killed(server)
    spoil(template.map("one"))
    other = await template.serve()
    await other.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid, nothing_removed=True)
    assert (await template.counters("one")).present_pages >= 200
    await fork.do("walk", 200, PAGES)
    await fork.do("walk", 0, 190)
    await fork.do("walk", 190, 200, expect="10")
    assert (await template.states("one")).count(ABSENT) == 0


@pytest.mark.parametrize("spoil", SPOILERS[:-1])
async def test_without_its_map_a_guest_that_may_have_given_pages_back_is_not_served(
    template: Template, spoil: Spoiler
) -> None:
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one")
    await fork.do("walk", 0, 200)
    await killed(server)
    spoil(template.map("one"))
    other = await template.serve()
    with pytest.raises(PageServerError, match="which pages its guest has given back is not known"):
        await other.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid)
    assert (await other.status()).forks == ()


async def test_what_lies_in_the_place_of_a_map_is_neither_followed_nor_removed(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one")
    replaced_by_a_directory(template.map("one"))
    assert (await server.put_back({"one": template.map("one")})).maps == ("one",)
    (aside,) = template.directory.glob("one.map.aside.*")
    assert (aside / "kept").read_text() == "somebody's"
    replaced_by_a_link(template.map("one"))
    before = (template.directory / "elsewhere").read_bytes()
    assert (await server.put_back({"one": template.map("one")})).maps == ("one",)
    await fork.do("walk", 0, PAGES)
    assert (template.directory / "elsewhere").read_bytes() == before
    assert (await template.states("one")).count(ABSENT) == 0


async def test_a_page_server_puts_its_maps_and_its_control_socket_back_and_goes_on_with_them(
    template: Template,
) -> None:
    server = await template.serve(Policy(fault_around_pages=4))
    fork = await template.fork(server, "one")
    await fork.do("walk", 0, 200)
    await fork.do("remove", 40, 60, expect="removed")
    before = await template.counters("one")
    for path in (template.map("one"), template.control):
        path.unlink()
    done = await server.put_back({"one": template.map("one")})
    assert (done.control, done.maps, done.failed) == (True, ("one",), ())
    assert await template.counters("one") == before
    assert await server.put_back({"one": template.map("one")}) == (False, (), ())
    # It is the one that is written to, and by which a successor goes on.
    await fork.do("walk", 200, 300)
    assert (await template.states("one"))[40:60] == bytes([REMOVED]) * 20
    await killed(server)
    other = await template.serve()
    await other.adopt("one", page_map=template.map("one"), vmm_pid=fork.pid)
    await fork.do("zeros", 40, 60)
    await fork.do("walk", 0, 40)
    await fork.do("walk", 60, PAGES)
    assert (await template.states("one"))[40:60] == bytes([ZERO]) * 20


async def test_without_a_directory_it_serves_on_and_puts_back_once_there_is_one(template: Template) -> None:
    server = await template.serve()
    pages = template.directory / "pages"
    pages.mkdir()
    fork = await template.fork(server, "one", load=False)
    await server.release("one")
    with listener_for(template.directory / "one.uffd") as listener:
        await server.attach("one", listener=listener, page_map=pages / "one.map", vmm_pid=fork.pid, prefetch="off")
    await fork.do("load", expect="sent")
    shutil.rmtree(pages)
    done = await server.put_back({"one": pages / "one.map"})
    assert done.maps == ()
    assert done.failed == ("the page map of fork one: No such file or directory",)
    await fork.do("walk", 0, PAGES)
    pages.mkdir()
    assert (await server.put_back({"one": pages / "one.map"})).maps == ("one",)
    with PageMapReader(pages / "one.map") as reader:
        assert reader.pages().count(ABSENT) == 0
    assert is_held(pages)


async def test_at_sighup_it_listens_again_for_a_supervisor_that_has_no_connection(template: Template) -> None:
    server = await template.serve(confined=False)
    fork = await template.fork(server, "one")
    pid, start_time = server.pid, server.start_time
    await server.disconnect()
    for path in (template.map("one"), template.control):
        path.unlink()
    async with asyncio.timeout(TIMEOUT), creations(template.directory) as created:
        os.kill(pid, signal.SIGHUP)
        await until_listening(template.control, created)
    found = await PageServer.connect(
        template_id="template", control=template.control, pid=pid, start_time=start_time, on_event=lambda _: None
    )
    assert found.forks == {"one"}
    assert (await found.put_back({"one": template.map("one")})).maps == ("one",)
    await fork.do("walk", 0, PAGES)
    await found.stop()


async def test_one_that_may_make_no_socket_is_handed_one_by_its_standard_output(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one")
    pid, start_time = server.pid, server.start_time
    await server.disconnect()
    for _ in range(2):
        template.control.unlink()
        pidfd = os.pidfd_open(pid)
        await asyncio.to_thread(listen_again, pidfd, template.control, TIMEOUT)
        os.close(pidfd)
    template.map("one").unlink()
    found = await PageServer.connect(
        template_id="template", control=template.control, pid=pid, start_time=start_time, on_event=lambda _: None
    )
    assert found.forks == {"one"}
    assert (await found.put_back({"one": template.map("one")})).maps == ("one",)
    await fork.do("walk", 0, PAGES)
    await found.stop()


async def test_what_listens_at_its_control_socket_is_left_alone(template: Template) -> None:
    server = await template.serve()
    template.control.unlink()
    template.control.mkdir()
    (failure,) = (await server.put_back({"one": template.map("one")})).failed
    assert "control socket" in failure
    template.control.rmdir()
    assert (await server.put_back({"one": template.map("one")})).control


async def test_it_holds_its_directories_against_the_aging_of_systemd(template: Template) -> None:
    server = await template.serve()
    assert is_held(template.directory)
    await killed(server)
    assert not is_held(template.directory)


def test_a_reader_survives_what_is_done_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "map"
    writer = page_map_at(path, PAGE, 100)
    with PageMapReader(path) as reader:
        assert reader.in_place
        path.unlink()
        assert not reader.in_place
    put_back(writer, path)
    with PageMapReader(path) as reader:
        os.truncate(path, 0)
        with pytest.raises(PageServerError, match="truncated"):
            reader.counters()
    with pytest.raises(OSError, match="Bad address"):
        put_back(writer, path)
    writer.close()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="it is a FIFO, and no file"):
        PageMapReader(tmp_path / "fifo")
