"""The host's pool of huge pages, shared out to VMs: none starts that it could not give all that its guest may touch."""

import asyncio
from dataclasses import dataclass
from typing import Final

from supervisor.errors import InsufficientResourcesError
from supervisor.system.processes import status_field
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, free_pages

_LOOKS: Final = 20
_LOOK_AGAIN_SECONDS: Final = 0.005
"""How often, and in what distance, there is another look at a pool that seems to have too few."""


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

    async def left(self, wanted: int) -> int:
        """How many pages are free and promised to nobody; PageServerError on a kernel without such pages.

        A page that is on its way into a VM is neither free nor that VM's, and a UFFDIO_COPY that has to read its source
        has two of them for a while (hugetlb_mfill_atomic_pte in mm/hugetlb.c): with fewer than wanted it looks again.
        """
        most = self._look()
        for _ in range(_LOOKS):
            if most >= wanted:
                break
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            most = max(most, self._look())
        return most

    def _look(self) -> int:
        """How many are left now, or fewer."""
        before = free_pages()
        promised = sum(max(share.pages - held_pages(share.pid), 0) for share in self._shares)
        # The fewer of the two: what has come into a VM in between was free before.
        return min(before, free_pages()) - promised

    async def promise(self, name: str, pages: int) -> Share:
        """Set aside what a VM that is about to start may take: so many pages, or none.

        InsufficientResourcesError that says how many pages are missing, where they are.
        """
        share = Share(pages)
        if pages:
            left = await self.left(pages)
            missing = pages - left
            if missing > 0:
                raise InsufficientResourcesError(
                    f"{name}: refused: it needs {pages} huge pages of 2 MiB, and the pool has {max(left, 0)} that"
                    f" are not promised to other VMs: {missing} are missing; add as many to /proc/sys/vm/nr_hugepages,"
                    " or end other VMs of huge pages"
                )
            self._shares.add(share)
        return share

    def claim(self, pages: int, pid: int) -> Share:
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
        held = status_field(pid, "HugetlbPages") if pid is not None else None
    except OSError:
        return 0
    return int(held.split()[0]) * 1024 // HUGE_PAGE_BYTES if held else 0
