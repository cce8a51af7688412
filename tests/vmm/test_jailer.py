"""The jailer: which one it is, what it starts, and a real Firecracker in a jail."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.errors import DependencyMissingError
from supervisor.guests.boot import boot_args
from supervisor.guests.build import build
from supervisor.system.cgroup_limits import CgroupLimits
from supervisor.system.own_cgroups import CgroupsMissingError, OwnCgroups
from supervisor.system.processes import status_field
from supervisor.system.regular_files import discard
from supervisor.vmm import jailer as jailer_module
from supervisor.vmm.enter import PROGRAM, SOURCE
from supervisor.vmm.hypervisor import Hypervisor, file_identity, usable
from supervisor.vmm.hypervisor import available as available_hypervisors
from supervisor.vmm.jailer import (
    Jailer,
    PreparedProgram,
    find_jailer,
    jail_problem,
    jailer_command,
    prepare_program,
    trial_problem,
)
from tests.harness.pagewalker_guest import KERNEL, MEMORY_MIB
from tests.harness.unix_http import request
from tests.harness.vmm_process import Lines

UID, GID = 1_890_000_017, 1_890_000_001
MIB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root")


@pytest.fixture(name="real")
def real_firecracker(firecracker: Path) -> Hypervisor:
    return usable(available_hypervisors(firecracker), "firecracker")


@pytest.fixture(name="real_jailer")
def found_jailer(real: Hypervisor) -> Jailer:
    try:
        return find_jailer(None, real)
    except DependencyMissingError as reason:
        pytest.skip(reason.message)


@pytest.fixture
def jails(run_dir: Path) -> Path:
    """Return where jails can be; skip where none can."""
    if problem := jail_problem(run_dir):
        pytest.skip(problem)
    return run_dir / "jail"


def made_root(jails: Path, name: str, program: PreparedProgram) -> Path:
    """Make a root with what pagewalker takes."""
    root = jails / "firecracker" / name / "root"
    root.mkdir(mode=0o700, parents=True)
    (root / "vmm").hardlink_to(program.vmm)
    machine = {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}
    source = {"kernel_image_path": "kernel", "boot_args": boot_args(hot_mib=1)}
    (root / "vm.json").write_text(json.dumps({"boot-source": source, "drives": [], "machine-config": machine}))
    shutil.copy(KERNEL, root / "kernel")
    return root


@contextmanager
def jailed(
    jailer: Jailer, program: PreparedProgram, jails: Path, name: str, parent_cgroup: str | None
) -> Iterator[subprocess.Popen[str]]:
    """Have a Firecracker in a jail whose guest runs, with its API at /api.sock there."""
    command = jailer_command(
        jailer,
        program,
        instance_id=name,
        uid=UID,
        gid=GID,
        jails=jails,
        parent_cgroup=parent_cgroup,
        file_bytes=100 * MIB,
        open_files=100,
        options=("--api-sock", "/api.sock", "--config-file", "/vm.json", "--level", "Off"),
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log, console = Lines(process.stderr), Lines(process.stdout)
    try:
        console.until("ready")
        yield process
    finally:
        process.kill()
        process.wait()
        log.rest()
        console.rest()


@needs_root
def test_a_jailed_firecracker_is_what_it_is_to_be(real: Hypervisor, real_jailer: Jailer, jails: Path) -> None:
    program = prepare_program(jails, real)
    root = made_root(jails, "one", program)
    try:
        cgroups = OwnCgroups.open(jails)
    except CgroupsMissingError as reason:
        pytest.skip(str(reason))
    cgroups.make("one", CgroupLimits(None, None, 100))
    with jailed(real_jailer, program, jails, "one", cgroups.parent("one")) as process:
        pid = process.pid
        assert status_field(pid, "Uid") == "\t".join([str(UID)] * 4)
        assert status_field(pid, "Gid") == "\t".join([str(GID)] * 4)
        assert status_field(pid, "Groups") == ""
        assert status_field(pid, "CapEff") == status_field(pid, "CapPrm") == "0" * 16
        assert (status_field(pid, "NoNewPrivs"), status_field(pid, "Seccomp")) == ("1", "2")
        assert cgroups.has("one", pid)
        assert cgroups.processes("one") == (pid,)
        assert os.getsid(pid) == pid
        assert Path("/proc", str(pid), "root").readlink() == Path("/")
        assert file_identity(Path(f"/proc/{pid}/exe")) == program.identity
        assert Path(f"/proc/{pid}/environ").read_bytes() == b""
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open")] == [["100", "100"]]
        assert request(root / "api.sock", "GET", "/version")[1] == {"firecracker_version": real.version}
        inside = {path.name for path in root.iterdir()}
        assert inside == {"vmm", "kernel", "vm.json", "firecracker", "firecracker.pid", "dev", "run", "api.sock"}
        # The link is of a file that it cannot write to.
        assert (root / "vmm").stat().st_uid == 0
        assert (root / "vmm").stat().st_mode & 0o022 == 0
        assert (root / "firecracker").stat().st_size < 1024
        cgroups.kill("one")
        process.wait(20)
    assert cgroups.remove("one")
    cgroups.leave()


@needs_root
def test_a_trial_says_whether_a_jail_can_be_made(real: Hypervisor, real_jailer: Jailer, jails: Path) -> None:
    program = prepare_program(jails, real)
    assert trial_problem(real_jailer, program, jails=jails, uid=UID, gid=GID) is None
    # No such user can be: the two last numbers mean nobody.
    refused = trial_problem(real_jailer, program, jails=jails, uid=2**32 - 1, gid=GID)
    assert refused is not None
    assert refused.startswith(f"{real_jailer.program}: a trial was refused: ")
    assert "\n" not in refused
    assert list((jails / "firecracker").iterdir()) == []


@needs_root
def test_without_the_link_the_exit_code_is_the_error(
    real: Hypervisor, real_jailer: Jailer, jails: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = prepare_program(jails, real)
    (made_root(jails, "one", program) / "vmm").unlink()
    command = jailer_command(
        real_jailer,
        program,
        instance_id="one",
        uid=UID,
        gid=GID,
        jails=jails,
        parent_cgroup=None,
        file_bytes=MIB,
        open_files=100,
        options=(),
    )
    assert subprocess.run(command, check=False).returncode == 2  # ENOENT


@needs_root
def test_where_there_is_no_stub_the_jailer_copies_firecracker(
    real: Hypervisor, real_jailer: Jailer, jails: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jailer_module._stub.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    try:
        program = prepare_program(jails, real)
        assert program.stub.samefile(program.vmm)
        root = made_root(jails, "one", program)
        with jailed(real_jailer, program, jails, "one", None):
            assert request(root / "api.sock", "GET", "/version")[1] == {"firecracker_version": real.version}
        assert (root / "firecracker").stat().st_size == program.vmm.stat().st_size
    finally:
        jailer_module._stub.cache_clear()


def pretended(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def named(program: Path, version: str = "1.12.1") -> Hypervisor:
    return Hypervisor("firecracker", (str(program),), version, "5.0.0", file_identity(program))


def test_what_jails_start_is_made_once_and_anew_for_another_firecracker(tmp_path: Path) -> None:
    firecracker = pretended(tmp_path, "firecracker", "v1.12.1")
    jails = tmp_path / "jail"
    first = prepare_program(jails, named(firecracker))
    assert prepare_program(jails, named(firecracker)) == first
    assert jails.stat().st_mode & 0o777 == 0o700
    assert first.stub.name == "firecracker"
    assert first.vmm.read_text() == firecracker.read_text()
    assert (first.stub.stat().st_mode & 0o777, first.vmm.stat().st_mode & 0o022) == (0o555, 0)
    assert [path.name for path in first.vmm.parent.parent.iterdir()] == [first.vmm.parent.name]

    firecracker.unlink()
    pretended(tmp_path, "firecracker", "v1.13.0")
    second = prepare_program(jails, named(firecracker))
    assert second.vmm.read_text() == firecracker.read_text()
    assert second.identity != first.identity
    # A start that was told of the first goes on with it.
    assert "1.12.1" in first.vmm.read_text()

    firecracker.write_text("#!/bin/sh\necho v1.14.0, written over in place\n")
    third = prepare_program(jails, named(firecracker))
    assert "v1.14.0" in third.vmm.read_text()
    assert not first.vmm.exists()
    assert second.vmm.exists()

    (third.vmm.parent.parent / ".making-0").mkdir()
    for lost in (third.vmm.parent, third.vmm, third.stub):
        discard(lost)
        assert prepare_program(jails, named(firecracker)).vmm == third.vmm
        assert third.vmm.exists() and third.stub.exists()
    assert not (third.vmm.parent.parent / ".making-0").exists()
    firecracker.unlink()
    with pytest.raises(FileNotFoundError):
        prepare_program(jails, named(firecracker))


@needs_root
@pytest.mark.parametrize(("mode", "owner"), [(0o775, 0), (0o700, 0), (0o755, 1000), (0o4755, 0)])
def test_a_firecracker_that_others_could_change_or_a_jail_could_not_run_is_copied(
    tmp_path: Path, mode: int, owner: int
) -> None:
    firecracker = pretended(tmp_path, "firecracker", "v1.12.1")
    os.chown(firecracker, owner, owner)
    firecracker.chmod(mode)
    program = prepare_program(tmp_path / "jail", named(firecracker))
    assert not program.vmm.samefile(firecracker)
    assert (program.vmm.stat().st_uid, program.vmm.stat().st_mode & 0o7777) == (0, 0o555)
    assert file_identity(program.vmm) == program.identity


@needs_root
def test_one_on_the_same_file_system_is_linked_and_on_another_copied(tmp_path: Path) -> None:
    firecracker = pretended(tmp_path, "firecracker", "v1.12.1")
    assert prepare_program(tmp_path / "jail", named(firecracker)).vmm.samefile(firecracker)
    shared = Path("/dev/shm")
    if shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("another file system")
    folder = shared / f"forktui-test-{os.getpid()}"
    try:
        program = prepare_program(folder, named(firecracker))
        assert program.vmm.read_text() == firecracker.read_text()
        assert not program.vmm.samefile(firecracker)
    finally:
        shutil.rmtree(folder)


def test_the_jailer_is_the_named_one_the_one_beside_firecracker_or_in_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/path:{os.environ['PATH']}")
    firecracker = pretended(tmp_path / "here", "firecracker-v1.12.1-x86_64", "Firecracker v1.12.1")
    in_path = pretended(tmp_path / "path", "jailer", "Jailer v1.12.1")
    assert find_jailer(None, named(firecracker)) == Jailer(in_path, "1.12.1")
    beside = pretended(tmp_path / "here", "jailer", "Jailer v1.12.1")
    assert find_jailer(None, named(firecracker)).program == beside
    release = pretended(tmp_path / "here", "jailer-v1.12.1-x86_64", "Jailer v1.12.1")
    assert find_jailer(None, named(firecracker)).program == release
    other = pretended(tmp_path, "my-jailer", "Jailer v1.12.1")
    assert find_jailer(other, named(firecracker)).program == other


def test_a_jailer_that_is_missing_or_of_another_version_is_refused_with_what_would_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firecracker = pretended(tmp_path, "firecracker", "Firecracker v1.12.1")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DependencyMissingError) as refused:
        find_jailer(None, named(firecracker))
    assert refused.value.message == (
        f"there is no jailer beside {firecracker} or in PATH: install the one of Firecracker 1.12.1, or name it with "
        "--jailer PATH"
    )
    older = pretended(tmp_path, "jailer", "Jailer v1.10.1")
    with pytest.raises(DependencyMissingError) as refused:
        find_jailer(None, named(firecracker))
    assert refused.value.message == (
        f"{older} is version 1.10.1, and Firecracker 1.12.1: name the jailer of that version with --jailer PATH"
    )
    with pytest.raises(DependencyMissingError, match=r"cannot be run: .*; name one for .* with --jailer PATH"):
        find_jailer(tmp_path / "gone", named(firecracker))
    with pytest.raises(DependencyMissingError, match="printed no version: is it Firecracker's jailer"):
        find_jailer(pretended(tmp_path, "no-jailer", "hello"), named(firecracker))


def test_whoever_is_not_root_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert jail_problem(tmp_path) == "the supervisor does not run as root: start it as root"


def test_root_without_capabilities_is_told_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(jailer_module, "status_field", lambda *_: "00000000a80425fb")  # as in a Docker container
    problem = jail_problem(tmp_path)
    assert problem is not None
    assert problem.startswith("the supervisor lacks CAP_SYS_ADMIN: start it as root")


@needs_root
@pytest.mark.parametrize("option", ["nodev", "noexec"])
def test_a_data_directory_on_such_a_mount_is_refused(tmp_path: Path, option: str) -> None:
    mount = ("mount", "-t", "tmpfs", "-o", option, "none", str(tmp_path))
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a mount")
    try:
        problem = jail_problem(tmp_path)
    finally:
        subprocess.run(("umount", str(tmp_path)), check=True)
    assert problem == (
        f"{tmp_path}: its file system is mounted {option}: mount it without, or name another one with --data-dir"
    )


@needs_root
def test_a_device_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mknod(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    assert jail_problem(tmp_path) is None
    monkeypatch.setattr(os, "mknod", mknod)
    assert "a device that is made there cannot be opened (Operation not permitted)" in str(jail_problem(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_stub_is_what_its_source_builds(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc")
    build(tmp_path / "enter.elf", str(SOURCE))
    assert (tmp_path / "enter.elf").read_bytes() == PROGRAM.read_bytes()
    assert PROGRAM.stat().st_size < 512
