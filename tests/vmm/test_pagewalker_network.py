"""pagewalker's network interface in a real Firecracker: what it answers, and that each fork says who it is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from supervisor.guests.boot import boot_args
from supervisor.guests.pagewalker import KERNEL_BASE, MAC
from tests.harness.guest_network import (
    GATEWAY,
    INTERFACE,
    GuestNetwork,
    echo_request,
    guest_network,
    interfaces,
)
from tests.harness.pagewalker_guest import HOT_MIB, SEED, SILENCE, booted, passes, read, restored
from tests.harness.tap import make_tap
from tests.harness.vmm_process import VmmProcess

LARGEST: Final = 1500 - 20 - 8
"""Bytes that a message can have in a packet of 1500."""


@pytest.fixture
def network() -> Iterator[GuestNetwork]:
    with guest_network() as network:
        yield network


def networked(
    firecracker: Path, folder: Path, network: GuestNetwork, arguments: str, **sections: Any
) -> contextlib.AbstractContextManager[VmmProcess]:
    """Return a VM that boots pagewalker with an interface, inside the network."""
    return network.within(booted(firecracker, folder, arguments, **interfaces() | sections))


ENDLESS: Final = boot_args(HOT_MIB, passes=0, seed=SEED)
ONCE: Final = boot_args(HOT_MIB, passes=1, seed=SEED)


def test_it_answers_pings_while_it_walks_and_walks_on(firecracker: Path, tmp_path: Path, network: GuestNetwork) -> None:
    with networked(firecracker, tmp_path / "vmm", network, ENDLESS) as vmm:
        vmm.console.take("ready")
        assert all(network.answers_ping() for _ in range(20))
        seen = len(vmm.console.all())
        assert vmm.console.more_than(seen + 3, timeout=10)
        assert vmm.console.take("pass 3") == passes(1, 3)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 56, LARGEST - 1, LARGEST])
def test_a_guest_that_is_done_is_woken_and_brings_all_bytes_back(
    firecracker: Path, tmp_path: Path, network: GuestNetwork, size: int
) -> None:
    with networked(firecracker, tmp_path / "vmm", network, ONCE) as vmm:
        assert vmm.console.take("done") == ["ready", "pass 1", "done"]
        assert network.answers_ping(bytes(number * 7 % 256 for number in range(size)))
        assert vmm.console.are_over(SILENCE)


def test_it_says_which_clone_it_is(firecracker: Path, tmp_path: Path, network: GuestNetwork) -> None:
    with networked(firecracker, tmp_path / "vmm", network, boot_args(HOT_MIB, 3, SEED)) as vmm:
        vmm.console.take("done")
        generation = network.generation()
        assert network.ask(b"who are you?\n") == f"generation {generation} passes 3 asked who are you?\n".encode()
        mem_file = vmm.snapshot()[1]
    assert len(generation) == 32
    assert any(bytes.fromhex(generation))
    assert bytes.fromhex(generation) in read(mem_file, 0, KERNEL_BASE)


def test_forks_answer_each_in_its_network_with_one_address_and_ids_of_their_own(
    firecracker: Path, tmp_path: Path, network: GuestNetwork
) -> None:
    with networked(firecracker, tmp_path / "vmm", network, ONCE) as vmm:
        vmm.console.take("done")
        source = network.generation()
        mem_file = vmm.snapshot()[1]
    said = {source}
    for generation in range(1, 4):
        with contextlib.ExitStack() as stack:
            networks = [stack.enter_context(guest_network()) for _ in range(2)]
            forks = [
                stack.enter_context(
                    own.within(restored(firecracker, tmp_path / f"fork-{generation}-{number}", mem_file))
                )
                for number, own in enumerate(networks)
            ]
            for own, fork in zip(networks, forks, strict=True):
                assert own.answers_ping()
                assert fork.console.take("done") == ["restored", "pass 1", "done"]
                assert own.answers_ping()
                assert own.ask(b"x").endswith(b" passes 1 asked x\n")
            said |= {own.generation() for own in networks}
            assert len(said) == 1 + 2 * generation
            mem_file = forks[0].snapshot()[1]


def test_a_fork_of_a_guest_in_the_midst_of_traffic_goes_on(
    firecracker: Path, tmp_path: Path, network: GuestNetwork
) -> None:
    mem_files = []
    with networked(firecracker, tmp_path / "vmm", network, ENDLESS) as vmm, network.pinger() as pinger:
        vmm.console.take("ready")
        pinger.ping(b"")
        for number in range(8):
            for sequence in range(1 + number * 5):
                pinger.socket.send(echo_request(bytes(LARGEST), 7, sequence))
            mem_files.append(vmm.snapshot(str(number))[1])
            vmm.resume()
    for number, mem_file in enumerate(mem_files):
        folder = tmp_path / f"snapshot-{number}"
        folder.mkdir()
        mem_file.rename(folder / "mem")
        mem_file.with_name(f"state{number}").rename(folder / "state")
        with (
            guest_network() as own,
            own.within(restored(firecracker, tmp_path / f"fork-{number}", folder / "mem")) as fork,
        ):
            assert own.answers_ping()
            fork.console.take("restored")
            assert fork.console.take("pass 2") == passes(1, 2)
            assert own.answers_ping()


def test_what_comes_while_it_is_paused_is_answered_afterwards(
    firecracker: Path, tmp_path: Path, network: GuestNetwork
) -> None:
    with networked(firecracker, tmp_path / "vmm", network, ENDLESS) as vmm, network.pinger() as pinger:
        vmm.console.take("ready")
        assert pinger.ping(b"before") == b"before"
        vmm.pause()
        pinger.socket.settimeout(SILENCE)
        with pytest.raises(TimeoutError):
            pinger.ping(b"paused")
        pinger.socket.settimeout(10)
        vmm.resume()
        assert pinger.reply() == b"paused"


def test_it_answers_at_the_address_that_it_is_told(firecracker: Path, tmp_path: Path) -> None:
    with (
        guest_network("10.9.255.254") as network,
        networked(firecracker, tmp_path / "vmm", network, ONCE + " ip=10.9.255.253") as vmm,
    ):
        vmm.console.take("done")
        assert network.answers_ping(guest="10.9.255.253")
        network.ask(b"probe 10.9.255.254", guest="10.9.255.253")
        assert vmm.console.next() == "probe 10.9.255.254 answered"


@pytest.mark.parametrize(
    "word",
    [
        "",
        "172.16.0.0",
        "172.16.0.3",
        "172.16.0.4",
        "1.2.5",
        "1.2.3.",
        "1.2.3.257",
        "1.2.3.5.6",
        "1.2.:.5",
        "1,2,3,5",
        "1.2.3.5x",
        "dhcp",
    ],
)
def test_an_address_that_it_cannot_have_is_an_error(
    firecracker: Path, tmp_path: Path, network: GuestNetwork, word: str
) -> None:
    with networked(firecracker, tmp_path / "vmm", network, f"{ONCE} ip={word}") as vmm:
        assert vmm.console.next() == "error: ip= is not a host of a /30"
        assert vmm.console.are_over(SILENCE)


def test_without_an_interface_its_word_is_somebody_elses(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", ONCE + " ip=dhcp") as vmm:
        assert vmm.console.take("done") == ["ready", "pass 1", "done"]


def test_it_has_a_mac_of_its_own_where_the_vm_names_none(
    firecracker: Path, tmp_path: Path, network: GuestNetwork
) -> None:
    nameless = {key: value for key, value in INTERFACE.items() if key != "guest_mac"}
    with (
        network.frames() as frames,
        networked(firecracker, tmp_path / "vmm", network, ONCE, **{"network-interfaces": [nameless]}) as vmm,
    ):
        vmm.console.take("done")
        assert network.answers_ping()
        replies = (frame for frame in iter(lambda: frames.recv(65536), b"") if frame[12:14] == b"\x08\x06")
        assert next(reply[22:28] for reply in replies if reply[20:22] == b"\0\x02") == bytes.fromhex(
            MAC.replace(":", "")
        )


def test_a_balloon_is_followed_beside_the_network(firecracker: Path, tmp_path: Path, network: GuestNetwork) -> None:
    balloon = {"amount_mib": 0, "deflate_on_oom": False}
    arguments = boot_args(HOT_MIB, 1, SEED, ballast_mib=4)
    with networked(firecracker, tmp_path / "vmm", network, arguments, balloon=balloon) as vmm:
        vmm.console.take("done")
        for amount_mib in (3, 1):
            vmm.set_balloon(amount_mib)
            assert vmm.console.next() == f"balloon {amount_mib * 256}"
            assert network.answers_ping()


def test_probes_show_what_can_be_reached(firecracker: Path, tmp_path: Path, network: GuestNetwork) -> None:
    network.give_address("lo", "10.77.0.1")
    with networked(firecracker, tmp_path / "vmm", network, ONCE) as vmm:
        vmm.console.take("done")
        assert network.ask(b"probe 10.77.0.1").endswith(b" asked probe 10.77.0.1\n")
        assert vmm.console.next() == "probe 10.77.0.1 answered"
        network.ask(b"probe 10.78.0.1")
        assert vmm.console.are_over(SILENCE)
        network.ask(f"probe {GATEWAY}\n".encode())
        assert vmm.console.next() == f"probe {GATEWAY} answered"


@pytest.mark.slow
def test_ten_thousand_pings_are_answered_one_and_all(firecracker: Path, tmp_path: Path, network: GuestNetwork) -> None:
    with networked(firecracker, tmp_path / "vmm", network, ONCE) as vmm, network.pinger() as pinger:
        vmm.console.take("done")
        for number in range(10_000):
            payload = number.to_bytes(4, "big") * (1 + number % 20)
            assert pinger.ping(payload) == payload
        assert network.answers_ping(bytes(1400))
        assert vmm.console.are_over(SILENCE)


def test_a_burst_longer_than_its_ring_is_answered_to_the_last(
    firecracker: Path, tmp_path: Path, network: GuestNetwork
) -> None:
    with networked(firecracker, tmp_path / "vmm", network, ONCE) as vmm, network.pinger() as pinger:
        vmm.console.take("done")
        pinger.ping(b"")
        vmm.pause()
        for number in range(100):
            pinger.socket.send(echo_request(b"", 7, number))
        vmm.resume()
        replies = (message[20:] for message in iter(lambda: pinger.socket.recv(65536), b""))
        numbers = (int.from_bytes(reply[6:8], "big") for reply in replies if reply[0] == 0 and reply[5] == 7)
        assert [next(numbers) for _ in range(100)] == list(range(100))


def test_only_its_first_interface_is_its_own(firecracker: Path, tmp_path: Path, network: GuestNetwork) -> None:
    second = {"iface_id": "eth1", "host_dev_name": "tap1"}
    with network.entered():
        make_tap("tap1")
    with networked(firecracker, tmp_path / "vmm", network, ONCE, **{"network-interfaces": [INTERFACE, second]}) as vmm:
        vmm.console.take("done")
        assert network.answers_ping()
