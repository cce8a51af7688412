"""The host's pool of huge pages, shared out to VMs: none starts that it could not give all that its guest may touch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.errors import InsufficientResourcesError
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, free_pages

_LOOKS: Final = 8
"""How often what is free and what VMs have is looked at until both are of one moment; after that it may be too few."""


@dataclass(eq=False)
class Share:
    """What one VM may take, in huge pages; `pid` is its VMM, which has some of it already."""

    pages: int
    pid: int | None = None


class HugePagePool:
    """Promises pages to VMs, and keeps count of what they have not taken yet.

    Firecracker reserves nothing when it maps guest memory (MAP_NORESERVE, src/vmm/src/vstate/memory.rs), so that what a
    VM may still take is free by the kernel's count.
    """

    def __init__(self) -> None:
        self._shares: set[Share] = set()

    def left(self) -> int:
        """How many pages are free and promised to nobody; PageServerError on a kernel without such pages."""
        free = free_pages()
        for _ in range(_LOOKS):
            promised = sum(max(share.pages - held_pages(share.pid), 0) for share in self._shares)
            before, free = free, free_pages()
            if before == free:
                break
        return free - promised

    def promise(self, name: str, pages: int) -> Share:
        """Set aside what a VM that is about to start may take: so many pages, or none.

        InsufficientResourcesError that says how many pages are missing, where they are.
        """
        share = Share(pages)
        if pages:
            left = self.left()
            missing = pages - left
            if missing > 0:
                raise InsufficientResourcesError(
                    f"{name}: refused: it needs {pages} huge pages of 2 MiB, and the pool has {max(left, 0)} that"
                    f" are not promised to other VMs: {missing} are missing; add as many to /proc/sys/vm/nr_hugepages,"
                    " or end other VMs of huge pages"
                )
            self._shares.add(share)
        return share

    def keep(self, pages: int, pid: int) -> Share:
        """Set aside what a VM that runs already may take, whether it is there or not."""
        share = Share(pages, pid)
        if pages:
            self._shares.add(share)
        return share

    def end(self, share: Share) -> None:
        """Forget a share: its VM has ended, or did not start."""
        self._shares.discard(share)


def held_pages(pid: int | None) -> int:
    """How many huge pages of 2 MiB a process has now: HugetlbPages of proc_pid_status(5); 0 for one that has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("HugetlbPages:"):
                return int(line.split()[1]) * 1024 // HUGE_PAGE_BYTES
    except OSError:
        pass
    return 0
