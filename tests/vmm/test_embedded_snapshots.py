"""Diff snapshots of the embedded VMM: what is in them, and that the layers merged are the guest's memory."""

import resource
from pathlib import Path

import pytest

from supervisor.embedded.walker import GENERATION_ADDRESS
from supervisor.guests.pagewalker import HOT_BASE, MIB, PAGE_SIZE, SCRATCH_BASE, SCRATCH_PAGES
from tests.harness.guest_page_server import page_server
from tests.harness.pagewalker_guest import extents, merged, write_config
from tests.harness.vmm_process import Start, VmmProcess

HOT_MIB = 2
MEMORY = 64 * MIB
GENERATION = GENERATION_ADDRESS & -PAGE_SIZE, (GENERATION_ADDRESS & -PAGE_SIZE) + PAGE_SIZE
SCRATCH = SCRATCH_BASE, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE
HOT = HOT_BASE, HOT_BASE + HOT_MIB * MIB
WALK_FOR_EVER = f"hot_mib={HOT_MIB} passes=0 seed=5"
WALK_ONCE = f"hot_mib={HOT_MIB} passes=1 seed=5"
DIFF = {"snapshot_type": "Diff", "snapshot_path": "state", "mem_file_path": "mem"}


def boot(start: Start, folder: Path, boot_args: str = WALK_ONCE, track: bool = True) -> VmmProcess:
    vmm = start("--config-file", write_config(folder, boot_args, track=track))
    vmm.console.until("pass 1")
    return vmm


def walk_on(vmm: VmmProcess) -> None:
    """Resume, and return when the guest has finished a pass."""
    before = len(vmm.console.all())
    vmm.resume()
    vmm.console.until("pass", skip=before)


def test_a_diff_needs_dirty_page_tracking(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, track=False)
    message = vmm.refusal("PUT", "/snapshot/create", DIFF)
    assert "Diff snapshots are not allowed on uVMs with dirty page tracking disabled" in message
    assert "set track_dirty_pages at boot" in message
    state, mem_file = vmm.snapshot()
    fork = start()
    fork.load(state, "File", mem_file)
    assert fork.request("GET", "/machine-config")[1]["track_dirty_pages"] is False
    fork.pause()
    assert "enable_diff_snapshots at load" in fork.refusal("PUT", "/snapshot/create", {**DIFF, "mem_file_path": "new"})
    assert not (run_dir / "new").exists()


def test_the_first_diff_of_a_booted_vm_is_all_that_was_ever_touched(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir)
    assert "while running" in vmm.refusal("PUT", "/snapshot/create", DIFF)
    state, diff = vmm.snapshot("1", "Diff")
    assert diff.stat().st_size == MEMORY
    assert extents(diff) == [GENERATION, SCRATCH, HOT]
    _, full = vmm.snapshot("2")
    assert merged(diff) == full.read_bytes()
    fork = start()
    fork.load(state, "File", diff)
    assert fork.console.until("done") == ["restored", "pass 1", "done"]


@pytest.mark.parametrize("first", ["Full", "Diff"])
def test_a_snapshot_of_either_kind_makes_all_pages_clean(start: Start, run_dir: Path, first: str) -> None:
    vmm = boot(start, run_dir, WALK_FOR_EVER)
    _, base = vmm.snapshot("1", first)
    assert extents(vmm.snapshot("2", "Diff")[1]) == []
    walk_on(vmm)
    _, diff = vmm.snapshot("3", "Diff")
    assert extents(diff) == [SCRATCH]
    _, full = vmm.snapshot("4")
    assert merged(base, diff) == full.read_bytes()


@pytest.mark.parametrize("field", ["enable_diff_snapshots", "track_dirty_pages"])
def test_a_diff_of_a_loaded_vm(start: Start, run_dir: Path, field: str) -> None:
    source = boot(start, run_dir)
    state, base = source.snapshot("1", "Diff")
    fork = start()
    backend = {"backend_type": "File", "backend_path": str(base)}
    fork.do("PUT", "/snapshot/load", {"snapshot_path": str(state), "mem_backend": backend, field: True})
    assert fork.request("GET", "/machine-config")[1]["track_dirty_pages"] is True
    _, first = fork.snapshot("2", "Diff")
    assert extents(first) == [GENERATION]
    walk_on(fork)
    fork.console.until("done")
    state, second = fork.snapshot("3", "Diff")
    assert extents(second) == [SCRATCH]
    _, full = fork.snapshot("4")
    assert merged(base, first, second) == full.read_bytes()
    (run_dir / "flat").write_bytes(merged(base, first, second))
    grandchild = start()
    grandchild.load(state, "File", run_dir / "flat", track=True)
    assert grandchild.console.until("done") == ["restored", "pass 1", "done"]
    assert extents(grandchild.snapshot("5", "Diff")[1]) == [GENERATION, SCRATCH]


def test_a_diff_faults_in_no_page(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir)
    state, base = source.snapshot()
    with page_server(run_dir / "pages.sock", base) as server:
        fork = start()
        fork.load(state, "Uffd", server.path, resume=False, track=True)
        _, first = fork.snapshot("1", "Diff")
        assert server.faults == [GENERATION[0]]
        assert extents(first) == [GENERATION]
        walk_on(fork)
        fork.console.until("done")
        faults = list(server.faults)
        assert len(faults) == 1 + SCRATCH_PAGES + HOT_MIB * MIB // PAGE_SIZE
        _, second = fork.snapshot("2", "Diff")
        assert server.faults == faults
        assert extents(second) == [SCRATCH]
        _, full = fork.snapshot("3")
    assert merged(base, first, second) == full.read_bytes()


def test_a_diff_goes_into_a_mem_file_that_is_there(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, WALK_FOR_EVER)
    _, mem_file = vmm.snapshot()
    walk_on(vmm)
    vmm.snapshot("", "Diff")
    _, full = vmm.snapshot("2")
    assert mem_file.read_bytes() == full.read_bytes()
    walk_on(vmm)
    mem_file.write_bytes(b"another size")
    vmm.snapshot("", "Diff")
    assert extents(mem_file) == [SCRATCH]


def test_a_diff_never_goes_into_the_mem_file_that_the_vm_reads(start: Start, run_dir: Path) -> None:
    state, mem_file = boot(start, run_dir).snapshot()
    before = mem_file.read_bytes()
    fork = start()
    fork.load(state, "File", mem_file, resume=False, track=True)
    message = fork.refusal("PUT", "/snapshot/create", {**DIFF, "snapshot_path": "state2"})
    assert "is the mem-file that this VM's memory is a mapping of" in message
    assert mem_file.read_bytes() == before
    assert extents(fork.snapshot("2", "Diff")[1]) == [GENERATION]


def test_a_diff_that_fails_loses_no_page(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, WALK_FOR_EVER)
    _, base = vmm.snapshot()
    walk_on(vmm)
    vmm.pause()
    message = vmm.refusal("PUT", "/snapshot/create", {**DIFF, "mem_file_path": "missing/mem"})
    assert "memory file: No such file" in message
    (run_dir / "small").write_bytes(bytes(MEMORY))
    unlimited = resource.prlimit(vmm.pid, resource.RLIMIT_FSIZE, (MIB, resource.RLIM_INFINITY))
    message = vmm.refusal("PUT", "/snapshot/create", {**DIFF, "mem_file_path": "small"})
    assert "memory file: File too large" in message
    resource.prlimit(vmm.pid, resource.RLIMIT_FSIZE, unlimited)
    _, diff = vmm.snapshot("2", "Diff")
    assert extents(diff) == [SCRATCH]
    _, full = vmm.snapshot("3")
    assert merged(base, diff) == full.read_bytes()


def test_firecracker_refuses_the_same_diffs(start: Start, run_dir: Path, firecracker: Path) -> None:
    write_config(run_dir, WALK_ONCE)
    ours = start("--config-file", "vm.json")
    theirs = start("--config-file", "vm.json", "--log-path", "/dev/stderr", program=[str(firecracker)])
    messages = []
    for vmm in (ours, theirs):
        vmm.console.until("done")
        vmm.pause()
        messages.append(vmm.refusal("PUT", "/snapshot/create", DIFF))
    assert messages[0].startswith(messages[1].rstrip("."))
