"""Page faults a second, over the last of them. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from forktui.model.faults import HostFaults
from forktui.model.world import World

RATE_SECONDS: Final = 2.0
"""Over which a rate is reckoned: some samples of a busy host, and soon over."""


def fault_rate(world: World, instance_id: str) -> float:
    """An instance's faults per second when statistics were told last; none of one without a VMM."""
    instance = world.instances.get(instance_id)
    if instance is None or instance.vmm_pid is None:
        return 0.0
    return sum(sample.of.get(instance_id, 0) for sample in _recent(world)) / RATE_SECONDS


def fault_rates(world: World) -> Mapping[str, float]:
    """The same of every instance that has any."""
    faults: dict[str, int] = {}
    for sample in _recent(world):
        for instance_id, number in sample.of.items():
            faults[instance_id] = faults.get(instance_id, 0) + number
    known = ((world.instances.get(instance_id), number) for instance_id, number in faults.items())
    return {one.id: number / RATE_SECONDS for one, number in known if one is not None and one.vmm_pid is not None}


def _recent(world: World) -> Iterator[HostFaults]:
    for sample in reversed(world.faults):
        if sample.at <= world.clock - RATE_SECONDS:
            return
        yield sample
