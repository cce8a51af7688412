"""How long a thing that dies again and again is left alone."""

import itertools

import pytest

from supervisor.runtime import restart_backoff
from supervisor.runtime.restart_backoff import DEATHS_AT_ONCE, DEATHS_REMEMBERED, LONGEST_DELAY, RestartBackoff


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(restart_backoff, "time", made)
    return made


def test_a_few_deaths_are_answered_at_once_and_more_of_them_ever_later(clock: Clock) -> None:
    dying = RestartBackoff()
    delays = []
    for _ in range(12):
        dying.died()
        delays.append(dying.delay())
    assert delays[:DEATHS_AT_ONCE] == [0.0] * DEATHS_AT_ONCE
    rising = delays[DEATHS_AT_ONCE:]
    assert rising[0] > 0
    assert all(later == min(2 * earlier, LONGEST_DELAY) for earlier, later in itertools.pairwise(rising))
    assert rising[-1] == LONGEST_DELAY


def test_deaths_are_forgotten_with_time(clock: Clock) -> None:
    dying = RestartBackoff()
    for _ in range(DEATHS_AT_ONCE + 1):
        dying.died()
    assert dying.delay() > 0
    clock.now += DEATHS_REMEMBERED + 1
    assert dying.delay() == 0
