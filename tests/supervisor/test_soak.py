"""The fuzzer while supervisors, page servers and VMMs are killed: afterwards nothing is broken, and nothing has grown.

`FORKTUI_TEST_FUZZ_SECONDS` is for how long; without it two rounds show that it works and say nothing of growth.
Supervisors are killed in the first and the last third. One lives through the middle third, and with it a page server,
whose figures are to be flat at that age too.
"""

import os
import random
from itertools import groupby
from operator import itemgetter
from typing import Final

import pytest

from tests.harness.growth import Row, comparison, grown, heading, line
from tests.harness.host_invariants import left_over
from tests.harness.soak import Kill, Soak
from tests.harness.supervisor_process import Home

SEED: Final = os.environ.get("FORKTUI_TEST_FUZZ_SEED")
SECONDS: Final = float(os.environ.get("FORKTUI_TEST_FUZZ_SECONDS", "0"))
CLIENTS: Final = int(os.environ.get("FORKTUI_TEST_FUZZ_CLIENTS", "5"))
ROUNDS: Final = 2
"""However short it is: each kind of kill comes up."""
WARM: Final = 1.0
"""Minutes in which a supervisor comes to have as many threads for its work, and as many events, as it ever keeps."""
LINES: Final = 60
"""About how many of the rows of a run are printed."""
NOT_JUDGED: Final = frozenset({"minutes", "operations", *Kill, "age", "page server's age", "huge pages"})
"""What says when, and what others on the machine have their part in."""


@pytest.mark.slow
async def test_nothing_grows_while_processes_are_killed(home: Home) -> None:
    seed = int(SEED) if SEED else random.randrange(1 << 32)
    print(f"\nseed {seed}, {SECONDS:.0f} s, {CLIENTS} clients, {home.hypervisor}", flush=True)
    async with Soak(home, seed, CLIENTS) as soak:
        rows = await rounds(soak)
    for (what, end), times in sorted(soak.outcomes.items()):
        print(f"{what}: {end}: {times}")
    judged = [column for column in rows[0] if column not in NOT_JUDGED]
    lives = groupby(rows, itemgetter(Kill.SUPERVISOR, Kill.STOP))
    longest = [row for row in max((list(life) for _, life in lives), key=len) if row["age"] >= WARM]
    bad = []
    for title, some in (("the whole run", rows), ("the longest life of a supervisor", longest)):
        if some:
            print(f"\n{title}, {len(some)} rounds", *comparison(some, judged), sep="\n")
            bad += [f"{column} in {title}" for column in grown(some, judged)]
    assert bad == []
    assert left_over(home) == []


async def rounds(soak: Soak) -> list[Row]:
    """Return the rows of a run whose middle third one supervisor lives through, printed as they come."""
    rows: list[Row] = []
    calm, due = False, 0.0
    while len(rows) < ROUNDS or soak.minutes * 60 < SECONDS:
        before, calm = calm, SECONDS / 3 <= soak.minutes * 60 < SECONDS * 2 / 3
        if before and not calm:
            await soak.restart()
        rows.append(await soak.round(calm=calm))
        if len(rows) == 1:
            print(*heading(list(rows[0])), sep="\n")
        if soak.minutes * 60 >= due:
            print(line(rows[-1]), flush=True)
            due = soak.minutes * 60 + SECONDS / LINES
    return rows
