"""Which cgroups a process is in, in either version, as far as this mount namespace shows them. Blocks on /proc."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, Self

from supervisor.system.processes import is_kernel_thread, proc_file

UP: Final = ".."


class Group(NamedTuple):
    """A cgroup's directory, and the version of its hierarchy."""

    folder: Path
    version: int


class Mount(NamedTuple):
    """Where a hierarchy is seen from which of its directories down."""

    root: PurePosixPath
    folder: Path
    version: int
    controllers: tuple[str, ...]
    """Those of a hierarchy of the first version, among other options of the mount."""

    def down_to(self, path: PurePosixPath) -> list[Group]:
        """Return the groups from that of this path up to the topmost one that is seen here."""
        root, parts = self.root.parts, path.parts
        if parts[: len(root)] == root and UP not in parts[len(root) :]:
            folder = self.folder.joinpath(*parts[len(root) :])
        elif set(root[1:]) == {UP} and UP not in parts:
            # Mounted from further above than this cgroup namespace's root, whose own name there is not known.
            folder = self.folder
        else:
            return []
        return [Group(one, self.version) for one in (folder, *folder.parents) if one.is_relative_to(self.folder)]


class Hierarchies:
    """The cgroup hierarchies that are mounted here: none where nobody has mounted one."""

    def __init__(self, mountinfo: str) -> None:
        """`mountinfo` is what that file in /proc/<pid> says."""
        self._mounts = tuple(_mounts(mountinfo))

    @classmethod
    def mounted(cls) -> Self:
        """Return those that this process sees."""
        try:
            return cls(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
        except OSError:
            return cls("")

    def mount(self, version: int, controller: str | None = None) -> Mount | None:
        """Return the mount of a version, with a controller if it is the first, that comes first in mountinfo."""
        found = (one for one in self._mounts if one.version == version)
        return next((one for one in found if controller is None or controller in one.controllers), None)

    def groups_of(self, pid: int | str, controller: str) -> list[Group]:
        """Return the groups by which a controller limits a process, its own first; none where it has ended."""
        try:
            told = proc_file(pid, "cgroup").decode(errors="surrogateescape")
        except OSError:
            return []
        return self.groups(told, controller)

    def groups(self, told: str, controller: str) -> list[Group]:
        """Return the same by what /proc/<pid>/cgroup says: cgroups(7)."""
        found: dict[Group, None] = {}
        for line in told.splitlines():
            number, controllers, path = line.split(":", 2)
            version = 2 if number == "0" else 1
            if version == 1 and controller not in controllers.split(","):
                continue
            for mount in self._mounts:
                if mount.version == version and (version == 2 or controller in mount.controllers):
                    found.update(dict.fromkeys(mount.down_to(PurePosixPath(path))))
        return list(found)


def is_alone(pid: int, group: Group) -> bool:
    """Return whether a process has a group for itself, but for what the kernel has there on its account."""
    try:
        found = [int(word) for word in (group.folder / "cgroup.procs").read_text().split()]
    except OSError:
        return False
    return pid in found and all(one == pid or is_kernel_thread(one) for one in found)


def _mounts(mountinfo: str) -> Iterator[Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, folder = map(_unescaped, before.split()[3:5])
            version = 2 if kind == "cgroup2" else 1
            yield Mount(PurePosixPath(root), Path(folder), version, tuple(options.split(" ")[-1].split(",")))


def _unescaped(path: str) -> str:
    r"""Return a path of mountinfo, in which white space and `\` are octal: mangle_path in fs/seq_file.c."""
    first, *rest = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
