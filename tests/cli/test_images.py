"""Images by commands: what is sent of a kernel and a root, and what is printed."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from forktui.client.uploads import tar_of_root
from tests.cli.conftest import Forktui
from tests.cli.test_users import NO_USER, PROGRAM
from tests.harness.kernels import bzimage, vmlinux
from tests.harness.programs import DONE, FAILED, USAGE
from tests.harness.supervisor_process import Home, supervisor


def module(*needed: str) -> bytes:
    return b"\x7fELF" + bytes(60) + b"depends=" + ",".join(needed).encode() + b"\0"


def kernel_package(directory: Path) -> Path:
    """Make what a distribution's kernel package has, and return its kernel."""
    modules = directory / "lib/modules/6.1.0/kernel"
    modules.mkdir(parents=True)
    for name, needed in (("virtio_blk", ("virtio",)), ("virtio", ()), ("nouveau", ()), ("ext4", ())):
        (modules / f"{name}.ko").write_bytes(module(*needed))
    (directory / "boot").mkdir()
    (directory / "boot/config-6.1.0").write_text("CONFIG_VIRTIO_BLK=m\nCONFIG_VMGENID=y\nCONFIG_OVERLAY_FS=m\n")
    kernel = directory / "boot/vmlinuz-6.1.0"
    kernel.write_bytes(bzimage(vmlinux(), size_behind=False))
    return kernel


async def test_a_kernel_package_and_a_directory_become_an_image(
    embedded: Home, forktui: Forktui, tmp_path: Path
) -> None:
    kernel = kernel_package(tmp_path / "kernel")
    root = tmp_path / "root"
    (root / "sbin").mkdir(parents=True)
    (root / "sbin/init").write_text("#!/bin/sh\n")
    async with supervisor(embedded):
        code, output, errors = await forktui("image", "build", "web", "--kernel", str(kernel), "--rootfs", str(root))
        assert (code, errors) == (DONE, "")
        assert "image web is made" in output and "taken out of a bzImage" in output
        assert "modules: virtio virtio_blk ext4" in output
        assert "CONFIG_VIRTIO_BLK" in output and "no-kvmapf" in output and "WHICH MEANS" in output
        code, output, _ = await forktui("images", "--json")
        assert {one["name"]: one["status"] for one in json.loads(output)}["web"] == "ready"
        code, output, errors = await forktui("image", "build", "web", "--kernel", str(kernel))
        assert (code, output) == (FAILED, "")
        assert "image web: image build refused: there is one" in errors
        code, output, _ = await forktui("image", "add", "other", str(embedded.data / "images/web"), "--json")
        assert (code, json.loads(output)["name"]) == (DONE, "other")
        assert await forktui("image", "rm", "web") == (DONE, "", "")
        assert [path.name for path in (embedded.data / "images").iterdir()] == ["other"]
        code, _, errors = await forktui("image", "rm", "web")
        assert (code, "there is none of this name" in errors) == (FAILED, True)


async def test_what_cannot_be_read_or_meant_is_one_line(embedded: Home, forktui: Forktui, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux())
    async with supervisor(embedded):
        for arguments, expected, said in (
            (("--kernel", "/no/such"), FAILED, "No such file or directory: '/no/such'"),
            (("--kernel", str(tmp_path / "vmlinux"), "--rootfs", "/no/such"), FAILED, "'/no/such'"),
            (("--kernel", str(tmp_path / "vmlinux"), "--vcpus", "99"), USAGE, "vcpus: 99 is refused"),
            (("--kernel", str(tmp_path / "vmlinux"), "--init", "sh", "--rootfs", str(tmp_path)), USAGE, "init"),
        ):
            code, output, errors = await forktui("image", "build", "web", *arguments)
            assert (code, output, errors.count("\n")) == (expected, "", 1), errors
            assert said in errors
        assert list((embedded.data / "images").iterdir()) == []


async def test_a_root_comes_from_standard_input(embedded: Home, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux())
    (tmp_path / "root").mkdir()
    tar = b"".join(tar_of_root(tmp_path / "root").pieces())
    async with supervisor(embedded):
        words = ("image", "build", "web", "--kernel", str(tmp_path / "vmlinux"), "--rootfs", "-", "--json")
        command = (sys.executable, "-P", "-m", "forktui", *words)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
        output, _ = await process.communicate(tar)
        assert (process.returncode, json.loads(output)["entries"]) == (DONE, 0)
        assert (embedded.data / "images/web/root.ext4").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_files_that_the_supervisors_user_may_not_read_are_sent_by_who_may(
    forktui: Forktui, run_dir: Path, tmp_path: Path
) -> None:
    # The interpreter's own files need not be that user's to read: what is imported late is imported before.
    os.chown(run_dir, NO_USER, NO_USER)
    kernel, root = tmp_path / "vmlinux", tmp_path / "root"
    kernel.write_bytes(vmlinux())
    root.mkdir(mode=0o700)
    (root / "secret").write_text("of root's")
    for path in (kernel, root / "secret"):
        path.chmod(0o600)
    places = ("--data-dir", str(run_dir / "data"), "--run-dir", str(run_dir / "run"), "--hypervisor", "embedded")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import importlib.readers\n{PROGRAM}", "forktui-supervisor", *places),
        stdout=PIPE,
        env={"HOME": "/"},
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"ready ")
        words = ("image", "build", "web", "--kernel", str(kernel), "--rootfs", str(root), "--json")
        code, output, errors = await forktui(*words, "--supervisor-user", str(NO_USER))
        assert (code, errors, json.loads(output)["entries"]) == (DONE, "", 1)
        made = run_dir / "data/images/web"
        assert {path.stat().st_uid for path in (made, *made.iterdir())} == {NO_USER}
    finally:
        process.terminate()
        await process.wait()
