"""A uid for each VMM in a jail and for each page server, out of a range that is the supervisor's alone. Pure."""

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

from supervisor.errors import InsufficientResourcesError


class Uids:
    """Gives uids that nobody has; who writes one down in a record has it until that record is gone."""

    def __init__(
        self, uids: range, data_dir: Path, foreign: Collection[int], recorded: Callable[[], Collection[int]]
    ) -> None:
        """`foreign` are uids of this range that processes have which are not of this data directory.

        Two supervisors of one host may have the same range: each begins where its data directory's name says.
        """
        self.gid = uids[0]
        """The group of what several jails read: no process's uid."""
        self._uids = uids[1:]
        self._foreign = frozenset(foreign)
        self._recorded = recorded
        name = hashlib.blake2b(str(data_dir).encode(), digest_size=8).digest()
        self._next = int.from_bytes(name, "big") % len(self._uids)

    def avoid(self, foreign: Collection[int]) -> None:
        """Give none of these: they are processes' which are not of this data directory."""
        self._foreign = frozenset(foreign)

    def free(self) -> int:
        """Return a uid that no record has, and that was not given for as long as the range is; none comes twice soon.

        Raises InsufficientResourcesError where all are taken.
        """
        recorded = self._recorded()
        for step in range(len(self._uids)):
            place = (self._next + step) % len(self._uids)
            if (uid := self._uids[place]) not in recorded and uid not in self._foreign:
                self._next = place + 1
                return uid
        raise InsufficientResourcesError(
            f"all {len(self._uids)} uids of jail_uids are taken: delete instances, or start the supervisor with more "
            "of them by --jail-uids"
        )
