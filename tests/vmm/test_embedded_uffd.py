"""The embedded VMM with its memory behind a userfaultfd: every fault is a real one, and may stay unanswered."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from supervisor.embedded.machine import TURN_SECONDS, WAIT_SECONDS
from supervisor.embedded.walker import GENERATION_ADDRESS
from supervisor.guests.pagewalker import HOT_BASE, MIB, PAGE_SIZE, SCRATCH_BASE, SCRATCH_PAGES
from supervisor.vmm import api_client
from tests.harness.checkout import ROOT
from tests.harness.guest_page_server import page_server
from tests.harness.pagewalker_guest import merged, write_config
from tests.harness.vmm_process import Start, VmmProcess, vmms

HOT_MIB = 2
MEM_SIZE = 64 * MIB
WALK = ["restored", "pass 1", "pass 2", "done"]
HOT = range(HOT_BASE, HOT_BASE + HOT_MIB * MIB, PAGE_SIZE)
SCRATCH = range(SCRATCH_BASE, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE)
NOBODY = 65534

pytestmark = pytest.mark.usefixtures("userfaultfd")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The state-file and the mem-file of a guest that has done its passes."""
    folder = tmp_path_factory.mktemp("source")
    with vmms(folder) as start:
        vmm = start("--config-file", write_config(folder, f"hot_mib={HOT_MIB} passes=2 seed=5"))
        vmm.console.until("done")
        return vmm.snapshot()


def test_every_page_comes_from_the_page_server(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    state, mem_file = snapshot
    with page_server(run_dir / "pages.sock", mem_file) as server:
        fork = start()
        fork.load(state, "Uffd", server.path, resume=False)
        assert server.faults == [GENERATION_ADDRESS & -PAGE_SIZE]
        fork.do("PATCH", "/vm", {"state": "Resumed"})
        assert fork.console.until("done") == WALK
        assert server.faults == [GENERATION_ADDRESS & -PAGE_SIZE, *HOT, *SCRATCH]
        [mapping] = server.message
        assert mapping.pop("base_host_virt_addr") % PAGE_SIZE == 0
        assert mapping == {"size": MEM_SIZE, "offset": 0, "page_size": PAGE_SIZE, "page_size_kib": PAGE_SIZE}


def test_a_flipped_byte_is_found(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    state, mem_file = snapshot
    damaged = Path(shutil.copy(mem_file, run_dir))
    address = HOT[7] + 1234
    with damaged.open("r+b") as file:
        file.seek(address)
        file.write(b"\1")
    with page_server(run_dir / "pages.sock", damaged) as server:
        fork = start()
        fork.load(state, "Uffd", server.path)
        assert fork.console.until("CORRUPT") == ["restored", f"CORRUPT {address:#x}"]
        assert server.faults[1:] == list(HOT[:8])


def test_a_snapshot_of_memory_that_has_not_come_yet(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    state, mem_file = snapshot
    with page_server(run_dir / "pages.sock", mem_file) as server:
        fork = start()
        fork.load(state, "Uffd", server.path, resume=False)
        fork.do("PUT", "/snapshot/create", {"snapshot_path": "state2", "mem_file_path": "mem2"})
        assert len(set(server.faults)) == MEM_SIZE // PAGE_SIZE
    before, after = mem_file.read_bytes(), (run_dir / "mem2").read_bytes()
    generation = GENERATION_ADDRESS + 16
    assert after[:GENERATION_ADDRESS] + after[generation:] == before[:GENERATION_ADDRESS] + before[generation:]
    assert after != before
    grandchild = start()
    grandchild.load(run_dir / "state2", "File", run_dir / "mem2")
    assert grandchild.console.until("done") == WALK


@pytest.mark.slow
def test_a_guest_that_waits_for_a_page_blocks_nobody(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    state, mem_file = snapshot
    with page_server(run_dir / "pages.sock", mem_file, withheld={HOT[100]}) as server:
        fork = start()
        fork.load(state, "Uffd", server.path)
        server.until_fault(HOT[100])
        refusals: list[str] = []
        pause = threading.Thread(target=lambda: refusals.append(fork.refusal("PATCH", "/vm", {"state": "Paused"})))
        began = time.monotonic()
        pause.start()
        assert fork.request("GET", "/")[1]["state"] == "Running"
        assert time.monotonic() - began < WAIT_SECONDS / 2
        pause.join(2 * WAIT_SECONDS)
        assert time.monotonic() - began == pytest.approx(WAIT_SECONDS, abs=2)
        assert "the CPU reached no page boundary in 5 s" in refusals[0]
        assert fork.console.all() == ["restored"]
        server.release()
        assert fork.console.until("done") == WALK
        fork.do("PATCH", "/vm", {"state": "Paused"})
        assert fork.request("GET", "/")[1]["state"] == "Paused"


def test_a_guest_that_waits_for_a_page_can_be_ended(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    state, mem_file = snapshot
    with page_server(run_dir / "pages.sock", mem_file, withheld={HOT[0]}) as server:
        fork = start()
        fork.load(state, "Uffd", server.path)
        server.until_fault(HOT[0])
        fork.send(signal.SIGTERM)
        assert fork.wait() == 0
        assert not fork.socket.exists()


def test_a_load_that_waits_for_a_page_can_be_ended(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    state, mem_file = snapshot
    page = GENERATION_ADDRESS & -PAGE_SIZE
    with page_server(run_dir / "pages.sock", mem_file, withheld={page}) as server:
        fork = start()
        load = threading.Thread(target=_load_in_vain, args=(fork, state, server.path))
        load.start()
        server.until_fault(page)
        assert fork.request("GET", "/")[1]["state"] == "Not started"
        fork.send(signal.SIGTERM)
        assert fork.wait() == 0
        load.join(5)
        assert not load.is_alive()


def test_a_page_server_that_is_not_there(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    fork = start()
    backend = {"backend_type": "Uffd", "backend_path": "pages.sock"}
    message = fork.refusal("PUT", "/snapshot/load", {"snapshot_path": str(snapshot[0]), "mem_backend": backend})
    assert "from uffd pages.sock: No such file or directory" in message
    assert fork.wait() == 1


def test_without_privileges(start: Start, run_dir: Path, snapshot: tuple[Path, Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: this test becomes nobody")
    python = _python_of_nobody()
    os.chown(run_dir, NOBODY, NOBODY)
    state = shutil.copy(snapshot[0], run_dir / "source")
    with page_server(run_dir / "pages.sock", snapshot[1]) as server:
        fork = start(program=[python, "-m", "supervisor.embedded"], user=NOBODY)
        fork.load(Path(state), "Uffd", server.path, track=True)
        assert fork.console.until("done") == WALK
        if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text() == "0\n":
            fork.log.until("userfaultfd is one for user mode only")
        _, diff = fork.snapshot("1", "Diff")
        _, full = fork.snapshot("2")
    memory, source = full.read_bytes(), snapshot[1].read_bytes()
    assert memory[HOT_BASE:] == source[HOT_BASE:]
    assert memory == merged(snapshot[1], diff)


def _load_in_vain(fork: VmmProcess, state: Path, path: Path) -> None:
    with pytest.raises(ConnectionError):
        fork.load(state, "Uffd", path)


def _python_of_nobody() -> str:
    """An interpreter that nobody may run; the one of the tests may be in a directory that is not for everyone."""
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")):
        check = [str(python), "-c", "import sys, supervisor.embedded; sys.exit(sys.version_info < (3, 11))"]
        try:
            subprocess.run(
                check, check=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={"PYTHONPATH": str(ROOT)}
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(python)
    pytest.skip("a Python 3.11 and a checkout that nobody may read")


def test_a_request_that_waits_for_another_is_silent_to_who_asks_again() -> None:
    assert TURN_SECONDS > api_client.QUICK, "a refusal would be taken for an answer, and its VM stay paused"
