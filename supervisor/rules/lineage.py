"""The fork forest, derived from the records of the children. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.models import ForkKind


@dataclass(frozen=True, slots=True)
class Descent:
    """Where one instance comes from: its source, and how it was forked."""

    id: str
    name: str
    source_id: str | None = None
    fork_kind: ForkKind | None = None


@dataclass(frozen=True)
class Forest:
    """Every instance under its source; an instance whose source is gone is a root.

    `children` and `holders` map an instance's id to the ids below it, in the order in which the instances were given.
    One that is gone, or whose record cannot be read, may still have holders: its template is read by them. Every walk
    ends, and comes to none twice, whatever the sources are.
    """

    members: Mapping[str, Descent]
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    holders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def fork_count(self, instance_id: str) -> int:
        """Return how many share_memory forks of this instance are alive."""
        return len(self.holders.get(instance_id, ()))

    def holder_names(self, instance_id: str, limit: int | None = None) -> tuple[str, ...]:
        """Return the names of the forks that lock this instance's memory, or of the first few of them."""
        return tuple(self.members[holder].name for holder in self.holders.get(instance_id, ())[:limit])

    def ancestors(self, instance_id: str) -> tuple[str, ...]:
        """Return the ids of the sources up to the root, nearest first."""
        seen = {instance_id: None}
        source = self.members[instance_id].source_id
        while source is not None and source in self.members and source not in seen:
            seen[source] = None
            source = self.members[source].source_id
        return tuple(seen)[1:]

    def descendants(self, instance_id: str) -> tuple[str, ...]:
        """Return the ids below this instance, each after its source."""
        seen = {instance_id: None}
        pending = list(reversed(self.children.get(instance_id, ())))
        while pending:
            child = pending.pop()
            if child not in seen:
                seen[child] = None
                pending.extend(reversed(self.children.get(child, ())))
        return tuple(seen)[1:]

    def generations(self, instance_id: str) -> tuple[tuple[str, ...], ...]:
        """Return the ids of this instance and all below it by their depth, the deepest first: leaves before sources."""
        found: list[tuple[str, ...]] = [(instance_id,)]
        seen = {instance_id}
        while below := tuple(
            child for parent in found[-1] for child in self.children.get(parent, ()) if child not in seen
        ):
            found.append(below)
            seen.update(below)
        return tuple(reversed(found))


@dataclass(frozen=True, slots=True)
class Link:
    """One name of a file: the file (device, inode), how many names it has anywhere, and its bytes on disk."""

    file: tuple[int, int]
    names: int
    bytes: int


def given_back(removals: Iterable[Sequence[Link]]) -> list[int]:
    """Return how many bytes each removal gives back, in this order: a file's go with the last of its names."""
    removed: dict[tuple[int, int], int] = {}
    freed = []
    for links in removals:
        freed.append(0)
        for link in links:
            removed[link.file] = removed.get(link.file, 0) + 1
            if removed[link.file] == link.names:
                freed[-1] += link.bytes
    return freed


def forest(members: Iterable[Descent]) -> Forest:
    """Build the forest of these instances."""
    by_id = {member.id: member for member in members}
    children: dict[str, list[str]] = {}
    holders: dict[str, list[str]] = {}
    for member in by_id.values():
        if member.source_id is None:
            continue
        if member.source_id in by_id:
            children.setdefault(member.source_id, []).append(member.id)
        if member.fork_kind == "share_memory":
            holders.setdefault(member.source_id, []).append(member.id)
    return Forest(
        by_id,
        {source: tuple(ids) for source, ids in children.items()},
        {source: tuple(ids) for source, ids in holders.items()},
    )


def sources_first(sources: Mapping[str, str | None]) -> list[str]:
    """Return the ids in the order in which they are given, but each after its source; a circle is broken somewhere.

    `sources` maps each id to its source's.
    """
    found: dict[str, None] = {}
    for first in sources:
        above: dict[str, None] = {}
        member: str | None = first
        while member is not None and member in sources and member not in found and member not in above:
            above[member] = None
            member = sources[member]
        found.update(dict.fromkeys(reversed(above)))
    return list(found)


def in_circles(sources: Mapping[str, str | None]) -> set[str]:
    """Return the ids that descend from themselves; `sources` maps each id to its source's."""
    found: set[str] = set()
    walked: set[str] = set()
    for first in sources:
        path: dict[str, int] = {}
        member: str | None = first
        while member is not None and member in sources and member not in walked:
            walked.add(member)
            path[member] = len(path)
            member = sources[member]
        if member is not None and member in path:
            found.update(tuple(path)[path[member] :])
    return found
