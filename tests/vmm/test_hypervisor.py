"""Which hypervisors can run here, and what is said of those that cannot."""

import os
import platform
from pathlib import Path

import pytest

from supervisor.errors import DependencyMissingError
from supervisor.vmm import hypervisor
from supervisor.vmm.hypervisor import (
    Hypervisor,
    available,
    embedded_hypervisor,
    select_hypervisor,
    tracking_field,
    userfaultfd_problem,
)

PRIVILEGED = os.geteuid() == 0


def write_program(path: Path, script: str) -> Path:
    """Write an executable that is not Firecracker."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_firecracker_is_found_where_it_is_named(firecracker: Path) -> None:
    found = select_hypervisor("firecracker", firecracker)
    assert found.name == "firecracker"
    assert found.command == (str(firecracker),)
    assert all(part.isdigit() for part in found.version.split("."))
    assert all(part.isdigit() for part in found.snapshot_version.split("."))


def test_firecracker_is_found_in_path(firecracker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "firecracker").symlink_to(firecracker)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert select_hypervisor("auto", None).command == (str(firecracker),)


def test_auto_is_embedded_where_there_is_no_firecracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert select_hypervisor("auto", None) == embedded_hypervisor()
    assert select_hypervisor("embedded", None) == embedded_hypervisor()


def test_a_firecracker_that_is_demanded_and_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DependencyMissingError, match=r"^firecracker cannot run here: there is no firecracker in PATH: "
    ):
        select_hypervisor("firecracker", None)
    with pytest.raises(
        DependencyMissingError, match=r"/nowhere/fc cannot be run: No such file or directory; name one for"
    ):
        select_hypervisor("firecracker", Path("/nowhere/fc"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo hello", "--version printed no version: is it Firecracker?"),
        ("echo Firecracker v1.12.3; exit 1", "--version printed no version"),
        ('test "$1" = --version && echo Firecracker v1.12.3', "--snapshot-version printed no version"),
    ],
)
def test_a_program_that_is_not_firecracker_is_refused(tmp_path: Path, script: str, reason: str) -> None:
    found = available(write_program(tmp_path / "program", script))["firecracker"]
    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize("version", ["1.11.0", "1.12.0-dev", "0.25.2"])
def test_a_firecracker_that_is_too_old_is_refused(tmp_path: Path, version: str) -> None:
    named = write_program(tmp_path / "program", f'test "$1" = --version && echo Firecracker v{version} || echo v5.0.0')
    found = available(named)["firecracker"]
    assert found == (
        f"{named} is version {version}, and Firecracker before 1.12.0 is not run: name a newer one with "
        "--firecracker PATH"
    )


def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    found = available(tmp_path / "file")["firecracker"]
    assert isinstance(found, str)
    assert "cannot be run: Permission denied; name one for" in found


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypervisor, "PROBE_TIMEOUT", 0.1)
    found = available(write_program(tmp_path / "program", "exec sleep 60"))["firecracker"]
    assert isinstance(found, str)
    assert "did not end within" in found


@pytest.mark.skipif(platform.machine() not in hypervisor.ARCHITECTURES, reason="Firecracker knows no such machine")
def test_without_kvm_firecracker_is_refused_and_auto_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = write_program(tmp_path / "firecracker", 'test "$1" = --version && echo Firecracker v1.12.3 || echo v6.0.0')
    monkeypatch.setattr(hypervisor, "KVM_DEVICE", tmp_path / "kvm")
    with pytest.raises(DependencyMissingError, match=r"there is no .*/kvm: enable virtualization and load kvm_intel"):
        select_hypervisor("firecracker", named)
    assert select_hypervisor("auto", named).name == "embedded"
    (tmp_path / "kvm").touch()
    assert available(named)["firecracker"] == Hypervisor("firecracker", (str(named),), "1.12.3", "6.0.0")


@pytest.mark.skipif(not PRIVILEGED, reason="only root can become a user without access")
def test_without_permission_for_kvm_the_group_is_named(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = run_dir / "kvm"
    device.touch(mode=0o600)
    run_dir.chmod(0o755)
    monkeypatch.setattr(hypervisor, "KVM_DEVICE", device)
    named = write_program(run_dir / "firecracker", 'test "$1" = --version && echo Firecracker v1.12.3 || echo v6.0.0')
    os.seteuid(65534)
    try:
        found = available(named)["firecracker"]
    finally:
        os.seteuid(0)
    assert found == f"{device} cannot be opened: add your user to its group (usermod -aG kvm $USER) and log in again"


FIRECRACKER = Hypervisor("firecracker", ("firecracker",), "1.12.1", "6.0.0")


@pytest.fixture
def userfaultfd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return stand-ins for the device and the sysctl, which is 0; neither exists yet."""
    device, sysctl = tmp_path / "userfaultfd", tmp_path / "unprivileged_userfaultfd"
    monkeypatch.setattr(hypervisor, "USERFAULTFD_DEVICE", device)
    monkeypatch.setattr(hypervisor, "UNPRIVILEGED_USERFAULTFD", sysctl)
    return device, sysctl


@pytest.mark.parametrize(
    ("version", "field"),
    [
        ("1.12.1", "enable_diff_snapshots"),
        ("1.9.0-dev", "enable_diff_snapshots"),
        ("1.13.0", "track_dirty_pages"),
        ("1.14.0-dev", "track_dirty_pages"),
        ("2.0.0", "track_dirty_pages"),
        (None, "track_dirty_pages"),
    ],
)
def test_dirty_tracking_has_the_name_that_the_version_knows(version: str | None, field: str) -> None:
    assert tracking_field(version) == field


def test_the_embedded_vmm_has_a_version_of_its_own_unless_it_answers_as_a_firecracker() -> None:
    assert embedded_hypervisor().firecracker_version is None
    assert embedded_hypervisor("1.14.0").firecracker_version == "1.14.0"
    assert FIRECRACKER.firecracker_version == FIRECRACKER.version


def test_a_kernel_without_userfaultfd_is_named(userfaultfd_files: tuple[Path, Path]) -> None:
    for each in (FIRECRACKER, embedded_hypervisor()):
        assert "CONFIG_USERFAULTFD" in str(userfaultfd_problem(each))


def test_the_embedded_vmm_needs_no_permission(userfaultfd_files: tuple[Path, Path]) -> None:
    userfaultfd_files[1].write_text("0\n")
    assert userfaultfd_problem(embedded_hypervisor()) is None


def test_a_userfaultfd_device_is_enough_for_firecracker(userfaultfd_files: tuple[Path, Path]) -> None:
    device, sysctl = userfaultfd_files
    sysctl.write_text("0\n")
    device.touch()
    assert userfaultfd_problem(FIRECRACKER) is None


def test_without_the_device_firecracker_needs_the_sysctl_or_a_capability(
    userfaultfd_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sysctl = userfaultfd_files[1]
    sysctl.write_text("1\n")
    assert userfaultfd_problem(FIRECRACKER) is None
    sysctl.write_text("0\n")
    monkeypatch.setattr(hypervisor, "CAP_SYS_PTRACE", 63)
    assert "run as root, set the sysctl vm.unprivileged_userfaultfd=1" in str(userfaultfd_problem(FIRECRACKER))


@pytest.mark.skipif(not PRIVILEGED, reason="only root has CAP_SYS_PTRACE")
def test_a_capability_is_enough_for_firecracker(userfaultfd_files: tuple[Path, Path]) -> None:
    userfaultfd_files[1].write_text("0\n")
    assert userfaultfd_problem(FIRECRACKER) is None


@pytest.mark.skipif(not PRIVILEGED, reason="only root can become a user without access")
def test_a_binary_out_of_reach_is_refused(run_dir: Path) -> None:
    run_dir.chmod(0o700)
    os.seteuid(65534)
    try:
        found = available(run_dir / "firecracker")["firecracker"]
    finally:
        os.seteuid(0)
    assert f"{run_dir}/firecracker cannot be run: Permission denied; name one" in str(found)
