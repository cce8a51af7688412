"""What a kernel has of what a guest and its forks need: by its configuration, else by words in it."""

import gzip
from pathlib import Path

import pytest

from supervisor.images.boot_arguments import boot_words
from supervisor.images.initramfs import archive
from supervisor.images.kernel_checks import NEEDS, embedded_config, findings, settings_of, strings_in
from supervisor.system.kernel_modules import in_order, module_name

CONFIG = (
    "# Linux/x86 6.1\nCONFIG_VIRTIO_MMIO=m\nCONFIG_VIRTIO_BLK=y\n# CONFIG_EXT4_FS is not set\nCONFIG_OVERLAY_FS=m\n"
)


def test_a_configuration_says_what_is_built_in_and_what_is_a_module() -> None:
    found = {one.option: one for one in findings(settings_of(CONFIG), (), ("virtio_mmio",), {"root", "shared root"})}
    assert found["VIRTIO_BLK"].status == "built in"
    assert (found["VIRTIO_MMIO"].status, found["VIRTIO_MMIO"].level) == ("module", "info")
    assert (found["EXT4_FS"].status, found["EXT4_FS"].level) == ("missing", "alarm")
    assert (found["OVERLAY_FS"].status, found["OVERLAY_FS"].level) == ("module", "alarm")
    assert "nothing here loads" in found["OVERLAY_FS"].meaning
    assert (found["VMGENID"].status, found["VMGENID"].level) == ("missing", "warning")
    assert "random numbers" in found["VMGENID"].meaning


def test_what_an_image_does_not_use_is_not_asked_of_its_kernel() -> None:
    assert {one.option for one in findings(settings_of(CONFIG), (), (), ())} == {
        need.option for need in NEEDS if need.only_for is None
    }


def test_the_configuration_that_a_kernel_has_in_it_is_read(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(bytes(999) + b"IKCFG_ST" + gzip.compress(CONFIG.encode()) + b"IKCFG_ED" + bytes(999))
    assert embedded_config(kernel) == CONFIG
    kernel.write_bytes(b"IKCFG_ST" + b"no gzip")
    assert embedded_config(kernel) is None
    kernel.write_bytes(b"IKCFG_ST" + gzip.compress(bytes(64 << 20)))
    assert len(embedded_config(kernel) or "") == 4 << 20


def test_words_in_a_kernel_tell_where_nothing_else_does(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(b"\x7fELF" + b"\0virtio-mmio\0kvm-clock\0" + bytes(99))
    found = {one.option: one.status for one in findings(None, strings_in(kernel), ("ext4",), {"root"})}
    assert (found["VIRTIO_MMIO"], found["KVM_GUEST"]) == ("built in", "built in")
    assert (found["VIRTIO_BLK"], found["EXT4_FS"]) == ("not found", "module")


@pytest.mark.parametrize("text", ["", "no configuration", "CONFIGURATION"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no kernel configuration"):
        settings_of(text)


@pytest.mark.parametrize(("version", "there"), [(None, True), ("1.12.1", True), ("1.15.9", True), ("1.16.0", False)])
def test_asynchronous_page_faults_are_off_where_snapshots_do_not_keep_them(version: str | None, there: bool) -> None:
    words = {one.word for one in boot_words(version=version, root=None, extra="quiet x=1")}
    assert ("no-kvmapf" in words) is there
    assert ("nosoftlockup" in words) is (version in (None, "1.12.1"))
    assert {"quiet", "x=1"} <= words


def module(*needed: str) -> bytes:
    return b"\x7fELF" + bytes(60) + b"license=GPL\0depends=" + ",".join(needed).encode() + b"\0name=x\0"


def test_modules_come_behind_those_that_they_need() -> None:
    files = {
        "ext4": module("jbd2", "mbcache"),
        "jbd2": module(),
        "mbcache": module("ext4"),
        "virtio_blk": module("virtio") + b"softdep=pre: jbd2 post: late\0",
    }
    order = in_order(["virtio_blk", "ext4", "absent"], {name: name for name in files}, lambda name: files[name])
    assert [name for name, _ in order] == ["jbd2", "virtio_blk", "mbcache", "ext4"]


def test_a_chain_of_modules_has_any_length() -> None:
    files = {f"m{number}": module(f"m{number + 1}") for number in range(3000)} | {"": module("")}
    order = in_order(["m0"], {name: name for name in files}, lambda name: files[name])
    assert [name for name, _ in order] == [f"m{number}" for number in reversed(range(3000))]


def test_modules_are_given_up_where_they_come_to_too_much() -> None:
    data = module("m0", "m1", "m2", "m3") + bytes(20 << 20)
    taken: list[str] = []

    def read(name: str) -> bytes:
        taken.append(name)
        return data

    with pytest.raises(ValueError, match="more than 64 MiB"):
        in_order(["m0"], {f"m{number}": f"m{number}" for number in range(4)}, read)
    assert len(taken) == 4


@pytest.mark.parametrize("data", [b"", b"text", bytes(99)])
def test_what_is_no_module_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no kernel module"):
        in_order(["ext4"], {"ext4": "ext4.ko"}, lambda name: data)
    with pytest.raises(ValueError, match=r"uncompressed|no kernel module"):
        in_order(["ext4"], {"ext4": "ext4.ko.xz"}, lambda name: data)


def test_the_names_of_modules() -> None:
    assert module_name("kernel/drivers/ptp/ptp-kvm.ko.xz") == "ptp_kvm"
    assert module_name("modules.dep") is None


def test_an_initramfs_has_first_init_and_its_modules_in_order() -> None:
    data = archive(b"init", [b"a", b"bb"], ["scratch"], "/bin/app")
    assert data.count(b"070701") == 5 + 1 + 1 + 2 + 1 + 1 + 1
    assert data.index(b"modules/000") < data.index(b"modules/001")
    assert b"/bin/app\0" in data
    with pytest.raises(ValueError, match="more than the 999"):
        archive(b"init", [b""] * 1000, [])
