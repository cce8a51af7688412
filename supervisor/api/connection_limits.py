"""How many connections there may be: in all, of one user, and for answers that may have no end. Pure."""

from dataclasses import dataclass
from typing import Final, Self

LEAST: Final = 16
"""Connections that there may be however short descriptors are: somebody has to be able to end something."""


@dataclass(frozen=True)
class ConnectionLimits:
    """The most there may be."""

    in_all: int
    of_user: int

    def within(self, free: int | None) -> Self:
        """Return the limits where connections and what is yet to be opened for guests share `free` descriptors.

        One half is the guests'. Of the connections, a quarter is for others than any one user, and for root and the
        supervisor's own user where all others come together.
        """
        in_all = self.in_all if free is None else min(self.in_all, max(LEAST, free // 2))
        return type(self)(in_all, min(self.of_user, in_all - in_all // 4))

    @property
    def of_onlookers(self) -> int:
        """Of all users who may look but not change, together."""
        return self.in_all - self.in_all // 4

    @property
    def endless_of_user(self) -> int:
        """Streams and waits of one user, which give way to nobody: its other half is for what is answered and gone."""
        return max(1, self.of_user // 2)
