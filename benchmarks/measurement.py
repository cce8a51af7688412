"""Samples of several modes taken in turn, and what is made of them: spreads, ratios, bars. Pure but for the order."""

import statistics
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

Sample = Mapping[str, float]
"""One measurement of one mode, by column."""


class Skipped(Exception):  # noqa: N818 - a reason to skip, not an error
    """This machine lacks what a benchmark needs; the message says what, in one line."""


@dataclass(frozen=True)
class Spread:
    """The median of some samples and their 10th and 90th percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """Return the spread of one sample or more."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(tenths[4], tenths[0], tenths[8])


@dataclass(frozen=True)
class Row:
    """One mode's spreads, by column."""

    name: str
    values: Mapping[str, Spread]


@dataclass(frozen=True)
class Bar:
    """A figure, mostly a ratio made round by round, beside what is promised of it: nothing where `limit` is None."""

    name: str
    value: Spread
    bound: Literal["at most", "at least"] = "at most"
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """Return `met` or `missed` by the median, empty where nothing is promised."""
        if self.limit is None:
            return ""
        met = self.value.median <= self.limit if self.bound == "at most" else self.value.median >= self.limit
        return "met" if met else "missed"


@dataclass(frozen=True)
class Result:
    """What one benchmark found, or why it was skipped."""

    name: str
    title: str
    rows: tuple[Row, ...] = ()
    bars: tuple[Bar, ...] = ()
    skipped: str | None = None


class Rounds:
    """The samples of each mode, round by round; whatever disturbs the machine meets all modes of a round alike."""

    def __init__(self) -> None:
        self._samples: defaultdict[str, list[Sample]] = defaultdict(list)

    @classmethod
    async def take(cls, count: int, modes: Sequence[str], measure: Callable[[str], Awaitable[Sample]]) -> Self:
        """Measure every mode once a round, each round beginning with another; a first round only warms up."""
        rounds = cls()
        for number in range(-1, count):
            first = number % len(modes)
            for mode in (*modes[first:], *modes[:first]):
                sample = await measure(mode)
                if number >= 0:
                    rounds._samples[mode].append(sample)
        return rounds

    def rows(self, modes: Iterable[str]) -> tuple[Row, ...]:
        """Return a row for each mode."""
        return tuple(
            Row(mode, {column: self.spread(mode, column) for column in self._samples[mode][0]}) for mode in modes
        )

    def spread(self, mode: str, column: str) -> Spread:
        """Return the spread of one column of a mode."""
        return Spread.of(self.column(mode, column))

    def column(self, mode: str, column: str) -> list[float]:
        """Return one column's samples of a mode, in the order of the rounds."""
        return [sample[column] for sample in self._samples[mode]]

    def ratio(self, mode: str, to: str, column: str) -> Spread:
        """Return the spread of the ratio of one mode to another, made in each round."""
        pairs = zip(self.column(mode, column), self.column(to, column), strict=True)
        return Spread.of([one / other for one, other in pairs])
