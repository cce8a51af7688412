"""How pytest-xdist's workers share the tests: those of the nested host are all one worker's, for there is one host."""

from typing import Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

NESTED: Final = "tests/linux/"


class OneHostScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives out each test for itself, and those of the nested host together, before all others: they take longest.

    xdist's own marks for that (`xdist_group`) change what pytest 9.2 reads no more of a test (`_nodeid`).
    """

    def _split_scope(self, nodeid: str) -> str:
        return NESTED if nodeid.startswith(NESTED) else nodeid
