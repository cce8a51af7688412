"""The embedded VMM's balloon: Firecracker's requests, real madvise, and zeros where pages were given back."""

import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from supervisor.embedded.cpu import Cpu
from supervisor.guests.pagewalker import HOT_BASE, MIB, PAGE_SIZE, pattern
from supervisor.uffd.handle import PageServer, Policy
from supervisor.uffd.page_map import ABSENT, REMOVED, ZERO, PageMapReader
from tests.harness.embedded_vmm import KERNEL, EmbeddedVmm, Start, extents, merged, page_server, vmms, write_config

MEM_MIB = 64
MEMORY = MEM_MIB * MIB
HOT_MIB = 1
BALLAST_MIB = 4
SEED = 3
ONCE = f"hot_mib={HOT_MIB} passes=1 seed={SEED} ballast_mib={BALLAST_MIB}"
FOR_EVER = f"hot_mib={HOT_MIB} passes=0 seed={SEED} ballast_mib={BALLAST_MIB}"
BALLAST = MEMORY - BALLAST_MIB * MIB
PAGES = MIB // PAGE_SIZE
NO_BALLOON = "Balloon config error: No balloon device found"
TOO_LARGE = "Balloon config error: Amount of pages requested is too large"


@pytest.fixture
def start(run_dir: Path) -> Iterator[Start]:
    """A function that starts VMMs in `run_dir`."""
    with vmms(run_dir) as start:
        yield start


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The state-file and the mem-file of a guest whose ballast is all there, and whose balloon is empty."""
    folder = tmp_path_factory.mktemp("source")
    with vmms(folder) as start:
        vmm = boot(start, folder, ONCE)
        vmm.console.until("done")
        return vmm.snapshot()


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same of a guest that walks for ever."""
    folder = tmp_path_factory.mktemp("endless")
    with vmms(folder) as start:
        return boot(start, folder, FOR_EVER).snapshot()


def boot(start: Start, folder: Path, boot_args: str, balloon_mib: int = 0, track: bool = False) -> EmbeddedVmm:
    vmm = start("--config-file", write_config(folder, boot_args, MEM_MIB, balloon_mib, track))
    vmm.console.until("pass 1")
    return vmm


def inflate_to(vmm: EmbeddedVmm, amount_mib: int) -> None:
    """Have the balloon get this large, or small, and return when it is."""
    before = len(vmm.console.all())
    vmm.do("PATCH", "/balloon", {"amount_mib": amount_mib})
    vmm.console.until(f"balloon {amount_mib * PAGES}", skip=before)


def pass_once_more(vmm: EmbeddedVmm) -> None:
    """Return when the guest has begun and ended a pass."""
    seen = len(vmm.console.all())
    seen += len(vmm.console.until("pass", skip=seen)[seen:])
    lines = vmm.console.until("pass", skip=seen)
    assert not any("CORRUPT" in line for line in lines)


def resident(vmm: EmbeddedVmm) -> int:
    """How many bytes of its own memory the VMM has."""
    lines = Path(f"/proc/{vmm.pid}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("Anonymous:")).split()[1])


def ballast(mem_file: Path) -> list[str]:
    """What the MiB of the ballast hold, from the lowest up."""
    memory = mem_file.read_bytes()
    assert len(memory) == MEMORY
    return ["pattern" if _is_pattern(memory, at) else _zeros(memory, at) for at in range(BALLAST, MEMORY, MIB)]


def _is_pattern(memory: bytes, start: int) -> bool:
    for page in range(start, start + MIB, PAGE_SIZE):
        word = pattern(SEED, page).to_bytes(8, "little")
        if memory[page : page + PAGE_SIZE] != word + bytes(PAGE_SIZE - 16) + word:
            return False
    return True


def _zeros(memory: bytes, start: int) -> str:
    assert not any(memory[start : start + MIB])
    return "zeros"


def test_the_requests_of_a_balloon(start: Start) -> None:
    vmm = start()
    assert vmm.refusal("GET", "/balloon").startswith(NO_BALLOON)
    before_start = "The requested operation is not supported before starting the microVM."
    assert vmm.refusal("PATCH", "/balloon", {"amount_mib": 1}) == before_start
    assert vmm.refusal("GET", "/balloon/statistics") == before_start
    vmm.do("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": MEM_MIB})
    too_large = {"amount_mib": MEM_MIB + 1, "deflate_on_oom": False}
    assert vmm.refusal("PUT", "/balloon", too_large).startswith(f"{TOO_LARGE}: 65 MiB of a machine with 64")
    vmm.do("PUT", "/balloon", {"amount_mib": MEM_MIB, "deflate_on_oom": True})
    smaller = {"vcpu_count": 1, "mem_size_mib": MEM_MIB - 1}
    assert "smaller than the previously set balloon" in vmm.refusal("PUT", "/machine-config", smaller)
    vmm.do("PUT", "/balloon", {"amount_mib": 2, "deflate_on_oom": True})
    config = {"amount_mib": 2, "deflate_on_oom": True, "stats_polling_interval_s": 0}
    assert vmm.request("GET", "/balloon") == (200, config)
    vmm.do("PUT", "/boot-source", {"kernel_image_path": str(KERNEL), "boot_args": FOR_EVER})
    vmm.do("PUT", "/actions", {"action_type": "InstanceStart"})
    vmm.console.until("balloon 512")
    assert "after starting" in vmm.refusal("PUT", "/balloon", config)
    assert vmm.refusal("PATCH", "/balloon", {"amount_mib": MEM_MIB + 1}).startswith(TOO_LARGE)
    assert "Statistics for the balloon device are not enabled" in vmm.refusal("GET", "/balloon/statistics")
    inflate_to(vmm, 3)
    assert vmm.request("GET", "/balloon") == (200, {**config, "amount_mib": 3})


def test_a_balloon_and_a_snapshot_do_not_go_together(start: Start, snapshot: tuple[Path, Path]) -> None:
    vmm = start()
    vmm.do("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": False})
    message = vmm.refusal("PUT", "/snapshot/load", {"snapshot_path": str(snapshot[0]), "mem_file_path": "mem"})
    assert "not allowed after configuring boot-specific resources" in message


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("PUT", {"amount_mib": 1}, "missing field `deflate_on_oom`"),
        ("PUT", {"amount_mib": -1, "deflate_on_oom": False}, "invalid value: int -1, expected u32 in `amount_mib`"),
        ("PUT", {"amount_mib": 1, "deflate_on_oom": 0}, "invalid type: int 0, expected bool"),
        ("PUT", {"amount_mib": 1, "deflate_on_oom": False, "stats_polling_interval_s": 65536}, "expected u16"),
        ("PATCH", {"amount_mib": 1 << 32}, "expected u32"),
        ("PATCH", {"amount_mib": 1, "stats_polling_interval_s": 1}, "unknown field `stats_polling_interval_s`"),
        ("PATCH", {}, "missing field `amount_mib`"),
    ],
)
def test_bodies_that_are_no_balloon(unused: EmbeddedVmm, method: str, body: Any, message: str) -> None:
    assert message in unused.refusal(method, "/balloon", body)


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedVmm]:
    """A VMM that nothing has been asked of."""
    with vmms(tmp_path_factory.mktemp("unused")) as start:
        yield start()


def test_firecracker_answers_the_same(start: Start, run_dir: Path, firecracker: Path) -> None:
    program = [str(firecracker), "--log-path", "/dev/stderr"]
    put = {"amount_mib": 1, "deflate_on_oom": False}
    ours, theirs = start(), start(program=program)
    for method, path, body in (
        ("GET", "/balloon", None),
        ("GET", "/balloon/statistics", None),
        ("PATCH", "/balloon", {"amount_mib": 1}),
        ("PUT", "/balloon", {**put, "amount_mib": 129}),
        ("PUT", "/balloon", {**put, "amount_mib": 128}),
        ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 127}),
        ("PUT", "/balloon", put),
        ("GET", "/balloon", None),
        ("PUT", "/balloon", {**put, "stats_polling_interval_s": 1}),
        ("PUT", "/boot-source", {"kernel_image_path": str(KERNEL), "boot_args": ONCE}),
        ("PUT", "/actions", {"action_type": "InstanceStart"}),
        ("GET", "/balloon", None),
        ("PUT", "/balloon", put),
        ("PATCH", "/balloon", {"amount_mib": 3}),
    ):
        status, answer = ours.request(method, path, body)
        their_status, their_answer = theirs.request(method, path, body)
        assert (method, path, status) == (method, path, their_status)
        if status == 400:
            assert answer["fault_message"].startswith(their_answer["fault_message"].rstrip("."))
        else:
            assert answer == their_answer
    for vmm in (ours, theirs):
        vmm.console.until("balloon 768")
        vmm.console.until("done")
    statistics, their_statistics = (vmm.request("GET", "/balloon/statistics")[1] for vmm in (ours, theirs))
    assert statistics == {name: their_statistics[name] for name in statistics}
    for vmm in (ours, theirs):
        assert vmm.request("PATCH", "/balloon", {"amount_mib": 129})[0] == 400
    (_, memory), (_, their_memory) = ours.snapshot("1"), theirs.snapshot("2")
    assert memory.read_bytes()[HOT_BASE:] == their_memory.read_bytes()[HOT_BASE:]


def test_pages_in_the_balloon_are_the_hosts_and_come_back_zero(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER)
    full = resident(vmm)
    inflate_to(vmm, 3)
    # The rest is what the interpreter does meanwhile.
    assert full - resident(vmm) == pytest.approx(3 * MIB, abs=MIB // 2)
    pass_once_more(vmm)
    assert ballast(vmm.snapshot()[1]) == ["pattern"] + ["zeros"] * 3
    statistics = {"target_pages": 768, "actual_pages": 768, "target_mib": 3, "actual_mib": 3}
    assert vmm.request("GET", "/balloon/statistics") == (200, statistics)
    vmm.do("PATCH", "/balloon", {"amount_mib": 1})
    statistics |= {"target_pages": 256, "target_mib": 1}
    assert vmm.request("GET", "/balloon/statistics") == (200, statistics)
    vmm.resume()
    vmm.console.until("balloon 256")
    pass_once_more(vmm)
    assert ballast(vmm.snapshot("2")[1]) == ["pattern"] + ["zeros"] * 3


def test_a_balloon_takes_no_more_than_the_ballast(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER, balloon_mib=MEM_MIB)
    vmm.console.until(f"balloon {BALLAST_MIB * PAGES}")
    pass_once_more(vmm)
    statistics = vmm.request("GET", "/balloon/statistics")[1]
    assert (statistics["target_mib"], statistics["actual_mib"]) == (MEM_MIB, BALLAST_MIB)


def test_a_guest_that_is_done_still_has_a_balloon(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, ONCE)
    vmm.console.until("done")
    inflate_to(vmm, 2)
    inflate_to(vmm, 0)
    assert vmm.console.all() == ["ready", "pass 1", "done", "balloon 512", "balloon 0"]


def test_an_interrupt_ends_the_guests_idling_once() -> None:
    begun: SimpleQueue[None] = SimpleQueue()

    def steps() -> Iterator[float | None]:
        while True:
            begun.put(None)
            yield None

    cpu = Cpu(steps(), lambda _: None)
    cpu.resume()
    begun.get(timeout=5)
    cpu.interrupt()
    begun.get(timeout=5)
    with pytest.raises(Empty):
        begun.get(timeout=0.2)


def test_what_a_fork_gives_back_is_not_the_mem_files_any_more(start: Start, snapshot: tuple[Path, Path]) -> None:
    fork = start()
    before = snapshot[1].read_bytes()
    fork.load(snapshot[0], "File", snapshot[1])
    fork.console.until("done")
    inflate_to(fork, 2)
    inflate_to(fork, 1)
    _, mem_file = fork.snapshot("2")
    assert ballast(mem_file) == ["pattern"] * 2 + ["zeros"] * 2
    assert snapshot[1].read_bytes() == before


def test_a_snapshot_carries_the_balloon(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir, FOR_EVER)
    inflate_to(source, 3)
    source.pause()
    source.do("PATCH", "/balloon", {"amount_mib": 1})
    fork = start()
    state, mem_file = source.snapshot()
    fork.load(state, "File", mem_file, resume=False)
    config = {"amount_mib": 1, "deflate_on_oom": False, "stats_polling_interval_s": 1}
    assert fork.request("GET", "/balloon") == (200, config)
    assert fork.request("GET", "/balloon/statistics")[1]["actual_mib"] == 3
    fork.resume()
    assert fork.console.until("pass 1") == ["restored", "balloon 256", "pass 1"]
    inflate_to(fork, 0)
    pass_once_more(fork)


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
        fork.do("PATCH", "/balloon", {"amount_mib": 1})
        word = pattern(SEED, MEMORY - 2 * MIB)
        wrong = next(at for at, byte in enumerate(word.to_bytes(8, "little")) if byte)
        assert fork.console.until("CORRUPT")[-1] == f"CORRUPT {MEMORY - 2 * MIB + wrong:#x}"


def test_a_page_server_that_reads_no_events_blocks_the_guest_alone(
    start: Start, run_dir: Path, snapshot: tuple[Path, Path]
) -> None:
    with page_server(run_dir / "pages.sock", snapshot[1]) as server:
        fork = start()
        fork.load(snapshot[0], "Uffd", server.path)
        fork.console.until("done")
        server.stop_reading()
        fork.do("PATCH", "/balloon", {"amount_mib": 1})
        server.until_unread()
        assert fork.request("GET", "/")[1]["state"] == "Running"
        assert fork.request("GET", "/balloon/statistics")[1]["actual_mib"] == 0
        fork.do("PATCH", "/balloon", {"amount_mib": 2})
        server.release()
        fork.console.until("balloon 512")
        assert len(server.until_removed(2)) == len(server.removed)
        server.stop_reading()
        fork.do("PATCH", "/balloon", {"amount_mib": 3})
        server.until_unread()
        fork.send(signal.SIGTERM)
        assert fork.wait() == 0


def test_a_diff_has_what_the_balloon_took_as_zeros(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER, track=True)
    _, base = vmm.snapshot("1")
    vmm.resume()
    inflate_to(vmm, 3)
    inflate_to(vmm, 1)
    state, diff = vmm.snapshot("2", "Diff")
    _, full = vmm.snapshot("3")
    assert ballast(full) == ["pattern"] + ["zeros"] * 3
    assert extents(diff)[-1] == (MEMORY - 3 * MIB, MEMORY)
    assert merged(base, diff) == full.read_bytes()
    (run_dir / "flat").write_bytes(merged(base, diff))
    fork = start()
    fork.load(state, "File", run_dir / "flat")
    fork.console.until("pass 1")
    inflate_to(fork, 0)
    pass_once_more(fork)


def test_a_balloon_before_the_first_snapshot_leaves_nothing_in_it(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER, balloon_mib=3, track=True)
    vmm.console.until("balloon 768")
    _, diff = vmm.snapshot("1", "Diff")
    assert ballast(diff) == ["pattern"] + ["zeros"] * 3
    assert extents(diff)[-1] == (BALLAST, BALLAST + MIB)


async def test_the_real_page_server_answers_with_zeros(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir, FOR_EVER, track=True)
    _, base = source.snapshot("1")
    source.resume()
    inflate_to(source, 1)
    state, diff = source.snapshot("2", "Diff")
    async with AsyncExitStack() as stack:
        server = await PageServer.spawn(
            template_id="template",
            layers=[diff, base],
            memory_size=MEMORY,
            page_size=PAGE_SIZE,
            hot_pages=run_dir / "hot_pages",
            control=run_dir / "control.sock",
            log=run_dir / "log",
            policy=Policy(),
            on_event=lambda _: None,
        )
        stack.push_async_callback(server.stop)
        fork = start()
        fork.log.until("Listening")
        await server.attach("fork", listen=run_dir / "pages.sock", page_map=run_dir / "map", vmm_pid=fork.pid)
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
