"""Whether a VMM runs in a jail, and what it may take there."""

import pytest

from supervisor.errors import DependencyMissingError
from supervisor.models import HypervisorName, JailMode
from supervisor.rules.jail import FILE_SLACK, JailOptions, jailed, limits, machine_problem

MIB = 1 << 20


@pytest.mark.parametrize(
    ("hypervisor", "mode", "problem", "own", "expected"),
    [
        ("firecracker", "auto", None, None, True),
        ("firecracker", "on", None, None, True),
        ("firecracker", "off", None, None, False),
        ("firecracker", "off", "no jailer", "a backend", False),
        ("firecracker", "auto", "no jailer", None, False),
        ("firecracker", "auto", None, "a backend", False),
        ("embedded", "auto", None, None, False),
        ("embedded", "off", None, None, False),
    ],
)
def test_it_does_where_it_is_to_and_can(
    hypervisor: HypervisorName, mode: JailMode, problem: str | None, own: str | None, expected: bool
) -> None:
    assert jailed("web", hypervisor, mode, problem, own) is expected


@pytest.mark.parametrize(
    ("hypervisor", "problem", "own", "reason"),
    [
        ("firecracker", "no jailer", None, "no jailer"),
        ("firecracker", None, "a backend", "a backend"),
        ("embedded", None, None, "the embedded VMM is Python, and has none"),
    ],
)
def test_where_it_has_to_and_cannot_it_is_refused(
    hypervisor: HypervisorName, problem: str | None, own: str | None, reason: str
) -> None:
    with pytest.raises(DependencyMissingError) as refused:
        jailed("web", hypervisor, "on", problem, own)
    expected = f"web: it is to run in a jail and cannot: {reason}; or start the supervisor with --jail auto"
    assert refused.value.message == expected


def test_limits_are_of_the_machine_and_what_is_given_beyond() -> None:
    found = limits(JailOptions("auto", 256 * MIB, 64, 100), 128 * MIB, 2, [1 << 30, 5])
    assert found[:4] == (384 * MIB, 66, 100, (1 << 30) + FILE_SLACK)
    assert limits(JailOptions("auto", 0, 0, 7), 128 * MIB, 2, [])[:4] == (None, None, 7, 128 * MIB + FILE_SLACK)


@pytest.mark.parametrize(
    ("tops", "backends", "problem"),
    [
        (["kernel", "disk.root", "run"], [], None),
        (["kernel", "firecracker"], [], "its vm.json names a file firecracker, which a jail has itself"),
        (["dev"], [], "its vm.json names a file dev, which a jail has itself"),
        (["kernel"], ["/run/b", "/run/a"], "a drive's backend listens at /run/a, outside of any jail"),
    ],
)
def test_a_machine_that_has_what_a_jail_has_cannot_be_in_one(
    tops: list[str], backends: list[str], problem: str | None
) -> None:
    assert machine_problem(tops, backends) == problem
