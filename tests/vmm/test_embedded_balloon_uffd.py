"""The embedded VMM's balloon under a userfaultfd: its page server is told of what is given back."""

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from supervisor.guests.pagewalker import MIB, PAGE_SIZE, pattern
from supervisor.runtime.attaching import listener_for
from supervisor.uffd.handle import PageServer, Policy
from supervisor.uffd.page_map import ABSENT, REMOVED, ZERO, PageMapReader
from tests.harness.embedded_balloon import FOR_EVER, MEMORY, PAGES, SEED, ballast, boot, inflate_to, pass_once_more
from tests.harness.guest_page_server import page_server
from tests.harness.pagewalker_guest import merged
from tests.harness.vmm_process import Start, vmms


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same of a guest that walks for ever."""
    folder = tmp_path_factory.mktemp("endless")
    with vmms(folder) as start:
        return boot(start, folder, FOR_EVER).snapshot()


def test_the_page_server_is_told_of_what_is_given_back(start: Start, run_dir: Path, endless: tuple[Path, Path]) -> None:
    with page_server(run_dir / "pages.sock", endless[1]) as server:
        fork = start()
        fork.load(endless[0], "Uffd", server.path)
        fork.console.until("pass 1")
        faults = len(server.faults)
        inflate_to(fork, 2)
        pass_once_more(fork)
        assert server.until_removed(2) == [(MEMORY - MIB, MEMORY), (MEMORY - 2 * MIB, MEMORY - MIB)]
        assert len(server.faults) == faults
        inflate_to(fork, 1)
        pass_once_more(fork)
        assert server.faults[faults:] == list(range(MEMORY - 2 * MIB, MEMORY - MIB, PAGE_SIZE))
        assert ballast(fork.snapshot("2")[1]) == ["pattern"] * 2 + ["zeros"] * 2


def test_a_page_server_that_forgets_what_was_given_back_is_found_out(
    start: Start, run_dir: Path, endless: tuple[Path, Path]
) -> None:
    with page_server(run_dir / "pages.sock", endless[1], forgetful=True) as server:
        fork = start()
        fork.load(endless[0], "Uffd", server.path)
        inflate_to(fork, 2)
        fork.set_balloon(1)
        word = pattern(SEED, MEMORY - 2 * MIB)
        wrong = next(at for at, byte in enumerate(word.to_bytes(8, "little")) if byte)
        assert fork.console.until("CORRUPT")[-1] == f"CORRUPT {MEMORY - 2 * MIB + wrong:#x}"


def test_a_page_server_that_reads_no_events_blocks_the_guest_alone(
    start: Start, run_dir: Path, ballasted: tuple[Path, Path]
) -> None:
    with page_server(run_dir / "pages.sock", ballasted[1]) as server:
        fork = start()
        fork.load(ballasted[0], "Uffd", server.path)
        fork.console.until("done")
        server.stop_reading()
        fork.set_balloon(1)
        server.until_unread()
        assert fork.request("GET", "/")[1]["state"] == "Running"
        assert fork.request("GET", "/balloon/statistics")[1]["actual_mib"] == 0
        fork.set_balloon(2)
        server.release()
        fork.console.until("balloon 512")
        assert len(server.until_removed(2)) == len(server.removed)
        server.stop_reading()
        fork.set_balloon(3)
        server.until_unread()
        fork.send(signal.SIGTERM)
        assert fork.wait() == 0


async def test_the_real_page_server_answers_with_zeros(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir, FOR_EVER, track=True)
    _, base = source.snapshot("1")
    source.resume()
    inflate_to(source, 1)
    state, diff = source.snapshot("2", "Diff")
    async with AsyncExitStack() as stack:
        with (run_dir / "log").open("ab") as log:
            server = await PageServer.spawn(
                template_id="template",
                layers=[diff, base],
                memory_size=MEMORY,
                page_size=PAGE_SIZE,
                hot_pages=run_dir / "hot_pages",
                control=run_dir / "control.sock",
                stderr=log.fileno(),
                policy=Policy(),
                on_event=lambda _: None,
            )
        stack.push_async_callback(server.stop)
        fork = start()
        fork.log.until("Listening")
        with listener_for(run_dir / "pages.sock") as listener:
            await server.attach("fork", listener=listener, page_map=run_dir / "map", vmm_pid=fork.pid)
        fork.load(state, "Uffd", run_dir / "pages.sock", track=True)
        fork.console.until("pass 1")
        inflate_to(fork, 3)
        with PageMapReader(run_dir / "map") as reader:

            async def states() -> list[set[int]]:
                """Those of the pages of the last 3 MiB."""
                # The guest goes on when an event has been read; an answer comes when it has been applied.
                await server.status()
                last = reader.pages()[-3 * PAGES :]
                return [set(last[start : start + PAGES]) for start in range(0, 3 * PAGES, PAGES)]

            assert await states() == [{REMOVED}, {REMOVED}, {ABSENT}]
            inflate_to(fork, 2)
            pass_once_more(fork)
            _, layer = fork.snapshot("3", "Diff")
            assert await states() == [{ZERO}, {REMOVED}, {ABSENT}]
            fork.resume()
            inflate_to(fork, 0)
            pass_once_more(fork)
        _, last = fork.snapshot("4", "Diff")
        _, full = fork.snapshot("5")
        assert ballast(full) == ["pattern"] + ["zeros"] * 3
        assert merged(base, diff, layer, last) == full.read_bytes()
