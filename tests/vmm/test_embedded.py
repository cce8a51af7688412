"""The embedded VMM as a process: boot, pause, snapshots, loads from a mem-file, and its end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.embedded import APP_NAME, VERSION
from supervisor.embedded.walker import GENERATION_ADDRESS
from supervisor.guests.pagewalker import HOT_BASE, MIB, PAGE_SIZE, SCRATCH_BASE, SCRATCH_PAGES, pattern
from tests.harness.checkout import ROOT
from tests.harness.pagewalker_guest import KERNEL, write_config
from tests.harness.vmm_process import EMBEDDED, Start

SEED = 77
HOT_MIB = 2
BOOT_ARGS = f"console=ttyS0 hot_mib={HOT_MIB} passes=3 seed={SEED}"
WALK = ["pass 1", "pass 2", "pass 3", "done"]


def boot(start: Start, folder: Path, boot_args: str = BOOT_ARGS) -> Any:
    return start("--config-file", write_config(folder, boot_args))


def hot_pages() -> range:
    return range(HOT_BASE, HOT_BASE + HOT_MIB * MIB, PAGE_SIZE)


def scratch_pages() -> range:
    return range(SCRATCH_BASE, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE)


def test_boots_by_requests(start: Start) -> None:
    vmm = start("--id", "vm-1")
    expected = {"id": "vm-1", "state": "Not started", "vmm_version": VERSION, "app_name": APP_NAME}
    assert vmm.request("GET", "/") == (200, expected)
    assert vmm.request("GET", "/version") == (200, {"firecracker_version": VERSION})
    vmm.do("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 96, "track_dirty_pages": True})
    vmm.do("PUT", "/boot-source", {"kernel_image_path": str(KERNEL), "boot_args": BOOT_ARGS})
    config = {
        "vcpu_count": 2,
        "mem_size_mib": 96,
        "smt": False,
        "track_dirty_pages": True,
        "huge_pages": "None",
    }
    assert vmm.request("GET", "/machine-config") == (200, config)
    vmm.do("PUT", "/actions", {"action_type": "InstanceStart"})
    assert vmm.request("GET", "/") == (200, {**expected, "state": "Running"})
    assert vmm.console.until("done") == ["ready", *WALK]


def test_boots_a_config_file(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir)
    assert vmm.console.until("done") == ["ready", *WALK]
    assert vmm.request("GET", "/")[1]["state"] == "Running"


def test_pause_stops_the_guest_and_resume_lets_it_go_on(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, "hot_mib=1 passes=0")
    vmm.console.until("pass 2")
    vmm.do("PATCH", "/vm", {"state": "Paused"})
    vmm.do("PATCH", "/vm", {"state": "Paused"})
    assert vmm.request("GET", "/")[1]["state"] == "Paused"
    count = len(vmm.console.all())
    assert not vmm.console.more_than(count, 0.3)
    vmm.do("PATCH", "/vm", {"state": "Resumed"})
    assert vmm.console.more_than(count + 3, 10.0)
    assert vmm.request("GET", "/")[1]["state"] == "Running"


def test_a_mem_file_holds_guest_memory_at_its_addresses(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir)
    vmm.console.until("done")
    _, mem_file = vmm.snapshot()
    memory = mem_file.read_bytes()
    assert len(memory) == 64 * MIB
    for page in hot_pages():
        word = pattern(SEED, page).to_bytes(8, "little")
        assert memory[page : page + PAGE_SIZE] == word + bytes(PAGE_SIZE - 16) + word
    for page in scratch_pages():
        assert int.from_bytes(memory[page : page + 8], "little") == pattern(SEED, page) + len(WALK) - 1
    assert not any(memory[HOT_BASE + HOT_MIB * MIB :])
    assert memory[GENERATION_ADDRESS : GENERATION_ADDRESS + 16] != bytes(16)
    assert mem_file.stat().st_blocks * 512 < (HOT_MIB + 1) * MIB


def test_a_mem_file_is_the_one_that_firecracker_makes(start: Start, run_dir: Path, firecracker: Path) -> None:
    ours = boot(start, run_dir)
    ours.console.until("done")
    _, mem_file = ours.snapshot()
    memory = mem_file.read_bytes()
    theirs = start("--config-file", "vm.json", "--log-path", "/dev/stderr", program=[str(firecracker)])
    theirs.console.until("done")
    _, mem_file = theirs.snapshot()
    other = mem_file.read_bytes()
    assert len(other) == len(memory)
    end = HOT_BASE + HOT_MIB * MIB
    assert other[HOT_BASE:end] == memory[HOT_BASE:end]
    assert [other[page : page + 8] for page in scratch_pages()] == [memory[page : page + 8] for page in scratch_pages()]


def test_a_loaded_vm_notices_it_and_counts_its_passes_anew(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir)
    source.console.until("done")
    state, mem_file = source.snapshot()
    before = mem_file.read_bytes()
    forks = [start() for _ in range(2)]
    for fork in forks:
        fork.load(state, "File", mem_file)
    for fork in forks:
        assert fork.console.until("done") == ["restored", *WALK]
        assert fork.request("GET", "/machine-config")[1]["mem_size_mib"] == 64
    source.do("PATCH", "/vm", {"state": "Resumed"})
    assert source.request("GET", "/")[1]["state"] == "Running"
    assert source.console.all() == ["ready", *WALK]
    assert mem_file.read_bytes() == before


def test_a_fork_of_a_fork_knows_what_both_wrote(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir)
    source.console.until("done")
    state, mem_file = source.snapshot()
    fork = start()
    fork.load(state, "File", mem_file)
    fork.console.until("pass 2")
    message = fork.refusal("PUT", "/snapshot/create", {"snapshot_path": "state", "mem_file_path": "mem"})
    assert "while running" in message
    fork.do("PATCH", "/vm", {"state": "Paused"})
    message = fork.refusal("PUT", "/snapshot/create", {"snapshot_path": "state2", "mem_file_path": "mem"})
    assert "mem is the mem-file that this VM's memory is a mapping of" in message
    fork.do("PUT", "/snapshot/create", {"snapshot_path": "state2", "mem_file_path": "mem2"})
    grandchild = start()
    grandchild.load(run_dir / "state2", "File", run_dir / "mem2")
    assert grandchild.console.until("done") == ["restored", *WALK]


def test_a_load_leaves_the_vm_paused_unless_told_otherwise(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir)
    source.console.until("done")
    state, mem_file = source.snapshot()
    fork = start()
    fork.do(
        "PUT",
        "/snapshot/load",
        {"snapshot_path": state.name, "mem_file_path": mem_file.name, "enable_diff_snapshots": True},
    )
    assert fork.request("GET", "/")[1]["state"] == "Paused"
    assert not fork.console.more_than(0, 0.2)
    fork.do("PUT", "/snapshot/create", {"snapshot_path": "state2", "mem_file_path": "mem2"})
    fork.do("PATCH", "/vm", {"state": "Resumed"})
    assert fork.console.until("done") == ["restored", *WALK]


@pytest.mark.parametrize("offset", [0, 7, 100, PAGE_SIZE - 1])
def test_a_flipped_byte_is_found(start: Start, run_dir: Path, offset: int) -> None:
    source = boot(start, run_dir)
    source.console.until("done")
    state, mem_file = source.snapshot()
    address = HOT_BASE + MIB + 3 * PAGE_SIZE + offset
    with mem_file.open("r+b") as file:
        file.seek(address)
        byte = file.read(1)[0]
        file.seek(address)
        file.write(bytes([byte ^ 0x10]))
    fork = start()
    fork.load(state, "File", mem_file)
    assert fork.console.until("CORRUPT") == ["restored", f"CORRUPT {address:#x}"]
    assert fork.request("GET", "/")[1]["state"] == "Running"
    fork.do("PATCH", "/vm", {"state": "Paused"})
    fork.do("PATCH", "/vm", {"state": "Resumed"})
    assert not fork.console.more_than(2, 0.2)


def test_a_lost_write_is_found(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir)
    source.console.until("done")
    state, mem_file = source.snapshot()
    address = SCRATCH_BASE + 5 * PAGE_SIZE
    with mem_file.open("r+b") as file:
        file.seek(address)
        file.write(pattern(SEED, address).to_bytes(8, "little"))
    fork = start()
    fork.load(state, "File", mem_file)
    assert fork.console.until("CORRUPT") == ["restored", f"CORRUPT {address:#x}"]


@pytest.mark.parametrize(
    ("boot_args", "line"),
    [
        ("hot_mib=33", "error: hot_mib=33 and the 32 MiB below it do not fit in memory"),
        ("hot_mib=0", "error: hot_mib=0 is not 1 to 992"),
        ("passes=", "error: passes= is not a decimal number below 2^64"),
        ("seed=18446744073709551616", "error: seed= is not a decimal number below 2^64"),
    ],
)
def test_a_command_line_that_cannot_be_followed(start: Start, run_dir: Path, boot_args: str, line: str) -> None:
    vmm = boot(start, run_dir, boot_args)
    assert vmm.console.until("error") == [line]
    state, mem_file = vmm.snapshot()
    fork = start()
    fork.load(state, "File", mem_file)
    assert not fork.console.more_than(0, 0.2)
    assert fork.request("GET", "/")[1]["state"] == "Running"


def test_requests_out_of_order_are_refused(start: Start, run_dir: Path) -> None:
    (run_dir / "other.elf").write_bytes(KERNEL.read_bytes() + b"\0")
    vmm = start()
    snapshot = {"snapshot_path": "state", "mem_file_path": "mem"}
    not_before = "The requested operation is not supported before starting the microVM."
    assert vmm.refusal("PATCH", "/vm", {"state": "Paused"}) == not_before
    assert vmm.refusal("PUT", "/snapshot/create", snapshot) == not_before
    assert "without kernel" in vmm.refusal("PUT", "/actions", {"action_type": "InstanceStart"})
    assert "No such file or directory (os error 2)" in vmm.refusal(
        "PUT", "/boot-source", {"kernel_image_path": "missing"}
    )
    assert "runs no other kernel" in vmm.refusal("PUT", "/boot-source", {"kernel_image_path": "other.elf"})
    vmm.do("PUT", "/boot-source", {"kernel_image_path": str(KERNEL)})
    assert "after configuring boot-specific" in vmm.refusal("PUT", "/snapshot/load", snapshot)
    vmm.do("PUT", "/actions", {"action_type": "InstanceStart"})
    not_after = "The requested operation is not supported after starting the microVM."
    assert vmm.refusal("PUT", "/actions", {"action_type": "InstanceStart"}) == not_after
    assert vmm.refusal("PUT", "/boot-source", {"kernel_image_path": str(KERNEL)}) == not_after
    assert vmm.refusal("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64}) == not_after
    assert vmm.refusal("PUT", "/snapshot/load", snapshot) == not_after
    vmm.do("PATCH", "/vm", {"state": "Paused"})
    missing = {"snapshot_path": "state", "mem_file_path": "missing/mem"}
    assert "memory file: No such file" in vmm.refusal("PUT", "/snapshot/create", missing)
    assert vmm.request("GET", "/")[1]["state"] == "Paused"


def edit(state: Path, **changes: Any) -> None:
    state.write_text(json.dumps({**json.loads(state.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state, mem: state.unlink(), "Failed to open snapshot file: No such file or directory"),
        (lambda state, mem: state.write_bytes(b"\0" * 9), "it is not a state-file of the embedded VMM"),
        (lambda state, mem: state.write_bytes(mem.read_bytes()), "it is not a state-file of the embedded VMM"),
        (lambda state, mem: edit(state, version="2.0.0"), "it has version '2.0.0', and this VMM loads 1.1.0"),
        (lambda state, mem: edit(state, mem_size_mib=128), "and the snapshot's memory has 134217728"),
        (lambda state, mem: edit(state, registers={"phase": "walk"}), "the registers are not those of"),
        (lambda state, mem: mem.unlink(), "from file mem: No such file or directory"),
        (lambda state, mem: os.truncate(mem, MIB), "mem has 1048576 bytes"),
    ],
)
def test_a_failed_load_ends_the_vmm(start: Start, run_dir: Path, damage: Any, message: str) -> None:
    source = boot(start, run_dir)
    source.console.until("done")
    damage(*source.snapshot())
    fork = start()
    backend = {"backend_type": "File", "backend_path": "mem"}
    assert message in fork.refusal("PUT", "/snapshot/load", {"snapshot_path": "state", "mem_backend": backend})
    assert fork.wait() == 1
    assert not fork.socket.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_vmm(start: Start, run_dir: Path, number: signal.Signals) -> None:
    vmm = boot(start, run_dir)
    vmm.console.until("ready")
    vmm.send(number)
    assert vmm.wait() == 0
    assert not vmm.socket.exists()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EMBEDDED, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_a_socket_that_is_there_is_left_alone(run_dir: Path) -> None:
    (run_dir / "vmm.sock").touch()
    result = run(run_dir, "--api-sock", "vmm.sock", "--level", "Off")
    assert result.returncode == 1
    assert result.stderr == (
        "Error: Failed to open the API socket at: vmm.sock: Address already in use (os error 98). "
        "Check that it is not already used.\n"
    )
    assert (run_dir / "vmm.sock").exists()


def test_a_socket_path_that_is_too_long(run_dir: Path) -> None:
    result = run(run_dir, "--api-sock", "s" * 200, "--level", "Off")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "too long" in result.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("garbage", "Invalid JSON: "),
        ({"drives": None}, "Invalid JSON: missing field `drives`"),
        ({"boot-source": None}, "Invalid JSON: missing field `boot-source`"),
        ({"boot-source": {"kernel_image_path": "missing"}}, "The kernel file cannot be opened: No such file"),
        ({"boot-source": {"kernel_image_path": "a", "b": 1}}, "Invalid JSON: unknown field `b`"),
        ({"machine-config": {"vcpu_count": 1, "mem_size_mib": "x"}}, "Invalid JSON: invalid type"),
        ({"machine-config": {"vcpu_count": 0, "mem_size_mib": 64}}, "The number of vCPUs must be"),
        ({"machine-config": {"vcpu_count": 1, "mem_size_mib": 1 << 40}}, "1 to 261120 MiB"),
        ({"drives": [{"drive_id": "a"}]}, "the embedded VMM has no drives"),
        ({"balloon": {"amount_mib": 65, "deflate_on_oom": False}}, "Amount of pages requested is too large: 65 MiB"),
        ({"balloon": {"deflate_on_oom": False}}, "Invalid JSON: missing field `amount_mib`"),
    ],
)
def test_a_config_file_that_cannot_be_booted(run_dir: Path, config: Any, message: str) -> None:
    path = run_dir / write_config(run_dir)
    if isinstance(config, str):
        path.write_text(config)
    else:
        sections = {**json.loads(path.read_text()), **config}
        path.write_text(json.dumps({name: value for name, value in sections.items() if value is not None}))
    result = run(run_dir, "--api-sock", "vmm.sock", "--config-file", "vm.json", "--level", "Off")
    assert (result.returncode, result.stderr.count("\n"), result.stdout) == (1, 1, "")
    assert message in result.stderr
    assert not (run_dir / "vmm.sock").exists()


def test_a_missing_config_file(run_dir: Path) -> None:
    result = run(run_dir, "--api-sock", "vmm.sock", "--config-file", "vm.json", "--log-path", "vmm.log")
    assert result.returncode == 1
    assert "vm.json: Unable to open" in result.stderr
    assert "vm.json: Unable to open" in (run_dir / "vmm.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--bogus"], 153),
        (["vmm.sock"], 153),
        (["--api-sock"], 153),
        (["--id", "a", "--id", "b"], 153),
        (["--level", "Loud"], 152),
        (["--id", "a/b"], 1),
        (["--log-path", "missing/log"], 1),
    ],
)
def test_a_command_line_that_the_vmm_refuses(run_dir: Path, arguments: list[str], exit_code: int) -> None:
    result = run(run_dir, *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (exit_code, "", 1)


def test_says_its_versions(run_dir: Path) -> None:
    assert run(run_dir, "--version").stdout == f"{APP_NAME} v{VERSION}\n"
    assert run(run_dir, "--snapshot-version").stdout == "v1.1.0\n"
    assert "--config-file PATH" in run(run_dir, "--help").stdout


def test_imports_little(run_dir: Path) -> None:
    source = (
        "import sys; before = set(sys.modules); import supervisor.embedded.__main__;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    result = subprocess.run(
        [sys.executable, "-c", source],
        cwd=run_dir,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(result.stdout.split())
    assert imported - {"supervisor"} <= sys.stdlib_module_names
    costly = {"argparse", "asyncio", "dataclasses", "email", "http", "inspect", "logging", "pathlib", "ssl", "urllib"}
    assert not imported & costly
