"""The hot-page list of one page server: loaded, added to, saved, and given out to forks as what they are prefetched."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from supervisor.system.loop import Loop
from supervisor.uffd import hot_pages
from supervisor.uffd.control import Policy
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.hot_pages import HotPages, Run, pages_in
from supervisor.uffd.hypeman_hot_pages import MAGIC, RegionPage, image_pages, read_hpl1
from supervisor.uffd.memory_image import MemoryImage
from supervisor.uffd.merging import Steps, finished, merging, wanting
from supervisor.uffd.sampling import Plan, hold_back


class HotList:
    """The list in memory and on disk; what the disk does not take is used all the same."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        image: MemoryImage,
        page_size: int,
        policy: Policy,
        log: Callable[[str], None],
        shown: Path | None = None,
    ) -> None:
        """Load what is at `path`, which is told of as `shown`."""
        self.refused = ""
        """Why the file is not used, or was not written; empty when there is nothing wrong."""
        self.runs: tuple[Run, ...] = ()
        """What a fork is prefetched, as long as nothing of it is held back."""
        self._loop = loop
        self._path = path
        self._shown = shown or path
        self._policy = policy
        self._log = log
        self._page_count = image.size // page_size
        self._prefetched = 0
        self._foreign: tuple[RegionPage, ...] = ()
        self._recordings: deque[Steps[None]] = deque()
        self._hot = HotPages(image.identity, page_size)
        self._load()

    @property
    def recorded(self) -> HotPages:
        """What was recorded, and what became of the samples."""
        return self._hot

    @property
    def page_count(self) -> int:
        """Pages of `runs`."""
        return pages_in(self.runs)

    def plan(self, fork_id: str, mappings: Sequence[Mapping], on_taken_in: Callable[[], None]) -> Plan:
        """What a new fork is to be prefetched; every `Policy.sample_every`th has a sample held back.

        Calls when this handshake was what a list of hypeman's had waited for, and that is ours now.
        """
        if self._foreign:
            self._take_in(mappings, on_taken_in)
        if not self.runs:
            return Plan()
        self._prefetched += 1
        every = self._policy.sample_every
        if every and self._prefetched % every == 0:
            return hold_back(self.runs, fork_id)
        return Plan(self.runs)

    def keep_recording(self, touched: Sequence[int], on_kept: Callable[[], None]) -> None:
        """Add a recording, in touch order, while no fault of any fork waits; then call."""
        self._recordings.append(self._keeping(touched, on_kept))
        if len(self._recordings) == 1:
            self._loop.add_idle(self._keep)

    def finish(self) -> None:
        """Add now what is not added yet."""
        while self._recordings:
            self._keep()

    def keep_sample(self, held_back: int, touched: int) -> None:
        """Add what one fork wanted of the pages that were held back from it."""
        self._hot = self._hot._replace(held_back=self._hot.held_back + held_back, touched=self._hot.touched + touched)
        self._save()

    def _keep(self) -> bool:
        """Idle work: one step of the oldest recording that is not added yet; False when there is none."""
        if self._recordings:
            try:
                next(self._recordings[0])
            except StopIteration:
                self._recordings.popleft()
        return bool(self._recordings)

    def _keeping(self, touched: Sequence[int], on_kept: Callable[[], None]) -> Steps[None]:
        hot = yield from merging(self._hot, touched, self._policy.record_pages, self._page_count)
        self.runs = yield from wanting(hot, self._policy.prefetch_share)
        self._hot = hot
        self._save()
        on_kept()

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self._log(reason)

    def _load(self) -> None:
        try:
            data = hot_pages.read(self._path, len(self._hot.identity), self._page_count)
            if data is None:
                return
            if data.startswith(MAGIC):
                self._foreign = read_hpl1(data)
                return
            hot = hot_pages.unpack(data)
        except OSError as error:
            self._refuse(f"hot-page list {self._shown} cannot be read: {error.strerror}")
            return
        except ValueError as error:
            self._refuse(f"hot-page list {self._shown} is refused: {error}")
            return
        reason = hot_pages.mismatch(hot, self._hot.identity, self._hot.page_size, self._page_count)
        if reason is None:
            # The layers as they are here: where a copy was put back, the next save knows them.
            self._hot = hot._replace(identity=self._hot.identity)
            self.runs = finished(wanting(hot, self._policy.prefetch_share))
        else:
            self._refuse(f"hot-page list {self._shown} is refused: {reason}")

    def _take_in(self, mappings: Sequence[Mapping], on_taken_in: Callable[[], None]) -> None:
        """Make hypeman's list ours, now that a fork's handshake has told where its regions are in the image."""
        foreign, self._foreign = self._foreign, ()
        try:
            touched = image_pages(foreign, mappings, self._hot.page_size)
        except ValueError as error:
            self._refuse(f"hot-page list {self._shown} is refused: {error}")
        else:
            finished(self._keeping(touched, on_taken_in))

    def _save(self) -> None:
        try:
            hot_pages.save(self._path, self._hot)
        except OSError as error:
            self._refuse(f"hot-page list {self._shown} cannot be saved: {error.strerror}")
        else:
            self.refused = ""
