"""The trees of the forest, each with its sums: what they hold of memory, and how many faults they have. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from forktui.model.faults import HostFaults
from forktui.model.totals import Totals, portion, summed
from forktui.model.world import World


@dataclass(frozen=True)
class Tree:
    """An instance without a source that is known, and all below it."""

    root: str
    sums: Totals
    """Over the root and all below it, but for `oldest_fault_ms`."""
    faults_per_second: float

    @property
    def resident_bytes(self) -> int:
        """What its VMs hold for themselves, and what they share."""
        return self.sums.private_bytes + self.sums.shared_bytes


def trees(world: World, now: float, seconds: float) -> list[Tree]:
    """All trees, in the order in which their roots were made; faults are of the last `seconds` before `now`.

    It costs as much as there are instances.
    """
    roots = root_of_each(world)
    members: dict[str, list[str]] = {}
    for instance_id, root in roots.items():
        members.setdefault(root, []).append(instance_id)
    faults = _faults(world.faults, roots, now - seconds)
    return [Tree(root, Totals(*_summed(world, ids)), faults.get(root, 0) / seconds) for root, ids in members.items()]


def root_of_each(world: World) -> dict[str, str]:
    """The id of the root above each instance, of a root its own; sources were made before their forks."""
    roots: dict[str, str] = {}
    for instance in sorted(world.instances.values(), key=attrgetter("number", "created_at", "id")):
        roots[instance.id] = roots.get(instance.source_id or "", instance.id)
    return roots


def _summed(world: World, instance_ids: Iterable[str]) -> tuple[int, ...]:
    return summed(portion(world.instances[i], world.statistics.get(i)) for i in instance_ids)


def _faults(samples: Iterable[HostFaults], roots: Mapping[str, str], since: float) -> dict[str, int]:
    """How many faults each tree has had since, by its root; those of instances that have gone are left out."""
    found: dict[str, int] = {}
    for sample in samples:
        if sample.at > since:
            for instance_id, faults in sample.of.items():
                if (root := roots.get(instance_id)) is not None:
                    found[root] = found.get(root, 0) + faults
    return found
