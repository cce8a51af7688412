"""Images: what is found wrong with them, and what of them comes into an instance's directory."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import BadRequestError, InvalidImageError
from supervisor.images import boot_image, builtin_image, machine_files
from supervisor.models.base import MIB
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, available
from supervisor.vmm.quarters import InDirectory
from tests.harness.plain_outputs import PLAIN
from tests.harness.waiting import until_console_says

CONFIG: dict[str, Any] = {
    "boot-source": {"kernel_image_path": "vmlinux", "initrd_path": "boot/initrd", "boot_args": "console=ttyS0"},
    "drives": [
        {"drive_id": "root", "is_root_device": True, "is_read_only": True, "path_on_host": "root.img"},
        {"drive_id": "data", "is_root_device": False, "path_on_host": "data.img", "rate_limiter": {"ops": None}},
        {"drive_id": "far", "is_root_device": False, "socket": "/run/vhost.sock"},
    ],
    "machine-config": {"vcpu_count": 2, "mem_size_mib": 512, "huge_pages": "None", "track_dirty_pages": True},
    "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}],
    "logger": {"log_path": "/var/log/fc"},
}


def write_image(images_directory: Path, config: object = CONFIG, name: str = "linux") -> Path:
    """Write an image with all the files that CONFIG names; returns its directory."""
    directory = images_directory / name
    (directory / "boot").mkdir(parents=True)
    for file in ("vmlinux", "boot/initrd", "root.img", "data.img"):
        (directory / file).write_text(f"content of {file}")
    (directory / "vm.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def changed(section: str, **values: object) -> dict[str, Any]:
    """Return CONFIG with another value for keys of a section; None leaves a key out."""
    merged = {**CONFIG.get(section, {}), **values}
    return {**CONFIG, section: {key: value for key, value in merged.items() if value is not None}}


def drive(**values: object) -> dict[str, Any]:
    """Return CONFIG with one drive."""
    return {**CONFIG, "drives": [{"drive_id": "root", "is_root_device": True, "path_on_host": "root.img", **values}]}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "vm.json: it is not JSON: EOF while parsing"),
        ("[]", "vm.json: it is not a JSON object"),
        ("[" * 10_000, "vm.json: it is not JSON: recursion limit exceeded"),
        ({}, "vm.json: boot-source: it is missing"),
        (changed("boot-source", kernel_image_path=None), "boot-source.kernel_image_path: it is missing"),
        (
            changed("boot-source", kernel_image_path=3),
            "boot-source.kernel_image_path: 3 is refused: it should be a valid string",
        ),
        (
            changed("boot-source", kernel_image_path="/boot/x"),
            "boot-source.kernel_image_path: '/boot/x' is refused: it has to be a path",
        ),
        (changed("boot-source", kernel_image_path="a/../../x"), "'a/../../x' is refused: it has to be a path inside"),
        (
            changed("boot-source", kernel_image_path=""),
            "boot-source.kernel_image_path: '' is refused: it has to be a path inside",
        ),
        (changed("boot-source", kernel_image_path="gone"), "gone is no file in the image's directory: put it there"),
        (changed("boot-source", kernel_image_path="boot"), "boot is no file in the image's directory"),
        (changed("boot-source", kernel_image_path="link"), "link is a link to /"),
        (changed("boot-source", initrd_path="gone"), "gone is no file"),
        (
            changed("machine-config", vcpu_count=33),
            "machine-config.vcpu_count: 33 is refused: it should be less than or equal to 32",
        ),
        (
            changed("machine-config", vcpu_count=True),
            "machine-config.vcpu_count: True is refused: it should be a valid integer",
        ),
        (
            changed("machine-config", mem_size_mib="1G"),
            "machine-config.mem_size_mib: '1G' is refused: it should be a valid integer",
        ),
        (
            changed("vsock", guest_cid=3, uds_path="/tmp/v.sock"),
            "vsock.uds_path: '/tmp/v.sock' is refused: it has to be a path",
        ),
        ({**CONFIG, "cpu-config": "gone.json"}, "gone.json is no file"),
        ({**CONFIG, "cpu-config": "vmlinux"}, "cpu-config: vmlinux is no JSON: Expecting value"),
        ({**CONFIG, "cpu-config": "list.json"}, "cpu-config: list.json has to hold a JSON object"),
        ({**CONFIG, "drives": {}}, "drives: it should be a valid array"),
        (drive(path_on_host="gone"), "gone is no file"),
        (drive(path_on_host="/dev/sda"), "drives.0.path_on_host: '/dev/sda' is refused: it has to be a path inside"),
        (drive(path_on_host=None), "drives.0: a drive has either path_on_host or socket"),
        (drive(drive_id="../x"), "drives.0.drive_id: '../x' is refused: it should match pattern"),
        (drive(is_root_device=None), "drives.0.is_root_device: None is refused: it should be a valid boolean"),
        ({**CONFIG, "pmem": [{"id": "p", "path_on_host": "gone"}]}, "gone is no file"),
        (
            {**CONFIG, "network_interfaces": []},
            "'network_interfaces' is none of Firecracker's sections: balloon, boot-",
        ),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_with_one_line(tmp_path: Path, config: object, reason: str) -> None:
    directory = write_image(tmp_path, config)
    (directory / "link").symlink_to("/bin/sh")
    (directory / "list.json").write_text("[]")
    with pytest.raises(InvalidImageError) as refused:
        boot_image.load_image(tmp_path, "linux")
    assert refused.value.message.startswith(f"image linux: {directory / 'vm.json'}: ")
    assert reason in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone", "there is no image 'gone': make a directory with a vm.json in "),
        ("empty", "image empty: {directory}/empty has no vm.json, nor a state and a mem: put them there"),
        *(
            (name, f"image {name[:64]!r} is refused: a name has up to 63 letters, digits")
            for name in ("", "..", "../linux", "linux/", "a\nb", "x" * 100, "my image")
        ),
    ],
)
def test_an_image_that_is_not_there_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    write_image(tmp_path)
    write_image(tmp_path, "{", name="broken")
    for made in ("empty", "my image"):
        (tmp_path / made).mkdir()
    with pytest.raises(boot_image.UnknownImageError) as refused:
        boot_image.load_image(tmp_path, name)
    assert refused.value.message.startswith(problem.format(directory=tmp_path))
    assert "\n" not in refused.value.message


def test_an_instance_gets_the_files_and_a_configuration_of_its_own(tmp_path: Path) -> None:
    source = write_image(tmp_path)
    instance = tmp_path / "instance"
    instance.mkdir()
    image = boot_image.load_image(tmp_path, "linux")
    boot_image.prepare(image, instance, memory_mib=256, vcpus=4, boot_args_extra=("quiet", "root=/dev/vda"))
    assert json.loads((instance / "vm.json").read_text()) == {
        "boot-source": {
            "kernel_image_path": "kernel",
            "initrd_path": "initrd",
            "boot_args": "console=ttyS0 quiet root=/dev/vda",
        },
        "drives": [
            {"drive_id": "root", "is_root_device": True, "is_read_only": True, "path_on_host": "disk.root"},
            {"drive_id": "data", "is_root_device": False, "path_on_host": "disk.data", "rate_limiter": {"ops": None}},
            {"drive_id": "far", "is_root_device": False, "socket": "/run/vhost.sock"},
        ],
        "machine-config": {"vcpu_count": 4, "mem_size_mib": 256, "huge_pages": "None", "track_dirty_pages": True},
        "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}],
    }
    assert (instance / "kernel").samefile(source / "vmlinux")
    assert (instance / "initrd").samefile(source / "boot" / "initrd")
    assert (instance / "disk.root").samefile(source / "root.img")
    assert not (instance / "disk.data").samefile(source / "data.img")
    assert (instance / "disk.data").read_text() == "content of data.img"


def test_a_fork_gets_its_own_disks_and_shares_the_rest(tmp_path: Path) -> None:
    write_image(tmp_path)
    source, fork = tmp_path / "source", tmp_path / "fork"
    source.mkdir()
    fork.mkdir()
    boot_image.prepare(boot_image.load_image(tmp_path, "linux"), source, memory_mib=256, vcpus=1)
    (source / "disk.data").write_text("written by the guest")
    machine_files.copy_machine(source, fork)
    (source / "disk.data").write_text("written later")
    assert (fork / "disk.data").read_text() == "written by the guest"
    assert (fork / "vm.json").read_text() == (source / "vm.json").read_text()
    for name in ("kernel", "initrd", "disk.root"):
        assert (fork / name).samefile(source / name)


def test_a_cpu_template_in_a_file_goes_into_the_configuration(tmp_path: Path) -> None:
    directory = write_image(tmp_path, {**CONFIG, "cpu-config": "boot/cpu.json"})
    (directory / "boot" / "cpu.json").write_text('{"cpuid_modifiers": []}')
    boot_image.prepare(boot_image.load_image(tmp_path, "linux"), tmp_path, memory_mib=256, vcpus=1)
    assert json.loads((tmp_path / "vm.json").read_text())["cpu-config"] == {"cpuid_modifiers": []}


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    write_image(tmp_path, "\ufeff" + json.dumps(CONFIG))
    boot_image.load_image(tmp_path, "linux")


def test_a_kernel_without_boot_args_keeps_those_of_firecracker(tmp_path: Path) -> None:
    write_image(tmp_path, {"boot-source": {"kernel_image_path": "vmlinux"}})
    boot_image.prepare(boot_image.load_image(tmp_path, "linux"), tmp_path, memory_mib=256, vcpus=1)
    assert json.loads((tmp_path / "vm.json").read_text())["boot-source"] == {"kernel_image_path": "kernel"}


@pytest.mark.parametrize("word", ["", "a b", "a\nb", "\x1b[2J", "caf\u00e9", "\0"])
def test_words_that_no_command_line_holds_are_refused(tmp_path: Path, word: str) -> None:
    image = boot_image.load_image(tmp_path, "pagewalker")
    with pytest.raises(BadRequestError, match=r"^cmd: .* is refused: each word has to be printable ASCII"):
        boot_image.prepare(image, tmp_path, memory_mib=128, vcpus=1, boot_args_extra=(word,))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("hot_mib=97",), "cannot run in 128 MiB: hot_mib=97 and the 32 MiB below it do not fit"),
        (("hot_mib=1", "hot_mib=0"), "hot_mib=0 is not 1 to"),
        (("seed=x",), "seed= is not a decimal number"),
    ],
)
def test_what_pagewalker_cannot_follow_is_refused_before_it_boots(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    image = boot_image.load_image(tmp_path, "pagewalker")
    with pytest.raises(BadRequestError, match=f"^image pagewalker .*{reason}"):
        boot_image.prepare(image, tmp_path, memory_mib=128, vcpus=1, boot_args_extra=words)
    assert not (tmp_path / "vm.json").exists()


def test_the_embedded_vmm_runs_pagewalker_only(tmp_path: Path) -> None:
    write_image(tmp_path)
    linux = boot_image.load_image(tmp_path, "linux")
    builtin_image.check_hypervisor("pagewalker", "embedded")
    builtin_image.check_hypervisor(linux.name, "firecracker")
    with pytest.raises(InvalidImageError, match=r"^image linux needs firecracker: "):
        builtin_image.check_hypervisor(linux.name, "embedded")


async def test_firecracker_boots_an_image_with_disks(firecracker: Path, tmp_path: Path, run_dir: Path) -> None:
    pagewalker = boot_image.load_image(tmp_path, "pagewalker")
    config = {
        "boot-source": {"kernel_image_path": "vmlinux", "boot_args": "hot_mib=1"},
        "drives": [
            {"drive_id": "root", "is_root_device": True, "is_read_only": True, "path_on_host": "root.img"},
            {"drive_id": "data", "is_root_device": False, "is_read_only": False, "path_on_host": "data.img"},
        ],
        "entropy": {},
    }
    directory = write_image(tmp_path, config)
    kernel = pagewalker.directory / pagewalker.config.boot_source.kernel_image_path
    (directory / "vmlinux").write_bytes(kernel.read_bytes())
    for name in ("root.img", "data.img"):
        os.truncate(directory / name, MIB)
    boot_image.prepare(
        boot_image.load_image(tmp_path, "linux"), run_dir, memory_mib=64, vcpus=2, boot_args_extra=("passes=1",)
    )
    hypervisor = available(firecracker)["firecracker"]
    assert isinstance(hypervisor, Hypervisor)
    vmm = await Vmm.spawn(
        hypervisor,
        instance_id="vm",
        quarters=InDirectory(run_dir, run_dir / "s"),
        config_file="vm.json",
        consoles=PLAIN,
    )
    try:
        await until_console_says(run_dir / "console.log", "done")
    finally:
        await vmm.terminate()


def test_files_of_another_file_system_are_copied(tmp_path: Path) -> None:
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("a second file system that can be written to")
    directory = write_image(tmp_path)
    instance = shared_memory / f"forktui-test-{os.getpid()}"
    instance.mkdir()
    try:
        boot_image.prepare(boot_image.load_image(tmp_path, "linux"), instance, memory_mib=64, vcpus=1)
        for name, source in (("kernel", "vmlinux"), ("disk.data", "data.img")):
            assert (instance / name).read_bytes() == (directory / source).read_bytes()
    finally:
        for path in instance.iterdir():
            path.unlink()
        instance.rmdir()
