"""What a VMM refuses of a guest's configuration: its words are the answer, a bad request, and nothing half stays."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from forktui.client.api import ApiError
from supervisor.guests.boot import kernel_path
from supervisor.models import CreateRequest, ForkRequest, State
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, console_holder, supervisor

MACHINE = {"vcpu_count": 1, "mem_size_mib": 64}
NOT_READ = "An error occurred when deserializing the json body of a request: "
NO_ID = "each entry has to be an object whose iface_id has letters, digits and _ only"
DRIVE = {"drive_id": "root", "is_root_device": True, "path_on_host": "empty"}
INTERFACE = {"iface_id": "eth0", "host_dev_name": "tap0"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "vcpus": ({"machine-config": {**MACHINE, "vcpu_count": 3, "smt": True}}, "PUT /machine-config: Machine config err"),
    "template": (
        {"machine-config": {**MACHINE, "cpu_template": "Z80"}},
        f"PUT /machine-config: {NOT_READ}unknown variant `Z80`",
    ),
    "unknown": ({"machine-config": {**MACHINE, "colour": 1}}, f"PUT /machine-config: {NOT_READ}unknown field `colour`"),
    "control": ({"machine-config": {**MACHINE, "a\x1b[2J\n": 1}}, r"unknown field `a\x1b[2J `"),
    "endless": ({"machine-config": {**MACHINE, "x" * 50_000: 1}}, "unknown field `xxxx"),
    "arguments": (
        {"boot-source": {"boot_args": "x" * 3000}},
        "PUT /boot-source: Boot source error: The kernel command",
    ),
    "nul": ({"boot-source": {"boot_args": "a\0b"}}, "boot-source.boot_args: no kernel command line holds a NUL"),
    "no-elf": ({"boot-source": {"kernel_image_path": "text"}}, "PUT /actions: Start microvm error: "),
    "no-kernel": ({"boot-source": {"kernel_image_path": "empty"}}, "PUT /actions: Start microvm error: "),
    "initrd": ({"boot-source": {"initrd_path": "empty"}}, "Error with initrd initialization"),
    "mac": ({"network-interfaces": [{**INTERFACE, "guest_mac": "x"}]}, "The provided MAC address is invalid"),
    "tap": ({"network-interfaces": [{**INTERFACE, "host_dev_name": "n" * 40}]}, "Open tap device failed"),
    "no-id": ({"network-interfaces": [{"host_dev_name": "tap0"}]}, f"network-interfaces: {NO_ID}"),
    "number": ({"network-interfaces": 5}, "network-interfaces: it has to be a list"),
    "numbers": ({"network-interfaces": [5]}, f"network-interfaces: {NO_ID}"),
    "elsewhere": ({"network-interfaces": [{"iface_id": "../metrics", "metrics_path": "written"}]}, NO_ID),
    "balloon": ({"balloon": {"amount_mib": 1 << 20, "deflate_on_oom": False}}, "PUT /balloon: Balloon config error"),
    "entropy": ({"entropy": {"x": 1}}, f"PUT /entropy: {NOT_READ}unknown field `x`"),
    "engine": ({"drives": [{**DRIVE, "io_engine": "Odd"}]}, f"PUT /drives/root: {NOT_READ}unknown variant `Odd`"),
    "device": (
        {"drives": [{"drive_id": "far", "is_root_device": False, "socket": "/nowhere"}]},
        "PUT /drives/far: Drive config error",
    ),
}


def write_image(home: Home, name: str, changes: dict[str, Any]) -> None:
    directory = home.data / "images" / name
    directory.mkdir(parents=True)
    shutil.copy(kernel_path(), directory / "kernel")
    (directory / "text").write_text("no kernel at all\n" * 1000)
    (directory / "empty").touch()
    boot_source = {"kernel_image_path": "kernel", **changes.get("boot-source", {})}
    (directory / "vm.json").write_text(json.dumps({**changes, "boot-source": boot_source}))


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def check_words(error: ApiError, words: str, name: str = "vm") -> None:
    assert (error.status, error.code) == (400, "bad_request"), error.message
    assert error.message.startswith(f"{name}: ")
    assert words in error.message
    assert error.message.isprintable()
    assert len(error.message) < 1500


async def test_an_image_that_firecracker_refuses_is_a_bad_request_with_its_words(firecracker_home: Home) -> None:
    home = firecracker_home
    for name, (changes, _) in REFUSED.items():
        write_image(home, name, changes)
    async with supervisor(home) as running:
        found = names_in(home.run)
        for name, (_, words) in REFUSED.items():
            check_words(await refused(running.client.create(CreateRequest(name="vm", image=name))), words)
            assert await running.client.instances() == []
            assert names_in(home.data / "instances") == []
            assert set(names_in(home.run)) <= {*found, "consoles.control"}
        assert {process.pid for process in home.processes()} <= {running.process.pid, console_holder(home)}


async def test_what_a_request_adds_to_an_image_is_refused_alike(home: Home) -> None:
    async with supervisor(home) as running:
        words = ("hot_mib=1", *("seed=1" for _ in range(400)))
        error = await refused(running.client.create(CreateRequest(name="vm", image="pagewalker", cmd=words)))
        check_words(error, "the VMM refused PUT /boot-source: Boot source error: The kernel command line is invalid: ")
        assert await running.client.instances() == []
        assert names_in(home.data / "instances") == []


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"vcpu_count": 3, "smt": True}, "PUT /machine-config: Machine config error: The number of vCPUs must be "),
        ({"colour": "red"}, f"PUT /machine-config: {NOT_READ}unknown field `colour`"),
    ],
)
async def test_a_stopped_instance_whose_configuration_is_refused_stays_stopped(
    home: Home, machine: dict[str, Any], words: str
) -> None:
    async with supervisor(home) as running:
        client = running.client
        made = await client.create(CreateRequest(name="vm", image="pagewalker", cmd=("hot_mib=1",), size="64MB"))
        stopped = await client.stop("vm")
        path = home.data / "instances" / made.id / "vm.json"
        right = path.read_text()
        change(path, machine)
        check_words(await refused(client.start("vm")), words)
        check_words(await refused(client.fork("vm", ForkRequest(name="fork", target_state="Running"))), words, "fork")
        assert await client.instances() == [stopped]
        assert {process.pid for process in home.processes()} <= {running.process.pid, console_holder(home)}
        path.write_text(right)
        assert (await client.start("vm")).state in (State.RUNNING, State.INITIALIZING)
        await client.delete("vm")


def change(path: Path, machine: dict[str, Any]) -> None:
    document = json.loads(path.read_text())
    document["machine-config"].update(machine)
    path.write_text(json.dumps(document))
