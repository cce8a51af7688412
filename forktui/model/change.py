"""What an event has changed of the world, so that whoever draws it need not look for that. Pure."""

from dataclasses import dataclass
from typing import Final

_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Change:
    """The ids of what is different; `|` of two is what both have changed, one after the other."""

    counted: frozenset[str] = _NONE
    """Instances with other counters."""
    shown: frozenset[str] = _NONE
    """Instances that came, went or are different, or whose template is."""
    moved: frozenset[str] = _NONE
    """Those of them that came or went, or have another source or another place in the order of creation."""
    everything: bool = False
    """Whether nothing of what was known need still be so; then nothing else is named."""

    def __or__(self, later: "Change") -> "Change":
        if self.everything or later.everything:
            return EVERYTHING
        return Change(self.counted | later.counted, self.shown | later.shown, self.moved | later.moved)

    @property
    def ids(self) -> frozenset[str]:
        """The instances of which anything is different."""
        return self.counted | self.shown


NOTHING: Final = Change()
EVERYTHING: Final = Change(everything=True)
