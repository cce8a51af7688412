"""Random operations by many clients at once: whatever they do, and in whatever order, the host's rules hold."""

import os
import random

import pytest

from tests.harness.host_invariants import left_over
from tests.harness.operations_fuzzer import EVERYTHING, ONE_SOURCE, Mix, fuzz
from tests.harness.supervisor_process import Home

SEED = os.environ.get("FORKTUI_TEST_FUZZ_SEED")
"""Repeats the choices of a run; how the operations interleave is the machine's."""
OPERATIONS = int(os.environ.get("FORKTUI_TEST_FUZZ_OPERATIONS", "120"))
CLIENTS = int(os.environ.get("FORKTUI_TEST_FUZZ_CLIENTS", "16"))

SHOWN = 8
"""Of what was found broken: one wrong thing is seen by many looks."""


@pytest.mark.parametrize("mix", [EVERYTHING, ONE_SOURCE], ids=["everything", "one-source"])
async def test_no_order_of_operations_breaks_a_rule(embedded: Home, mix: Mix) -> None:
    seed = int(SEED) if SEED else random.randrange(1 << 32)
    print(f"seed {seed}, {OPERATIONS} operations, {CLIENTS} clients")
    done = await fuzz(embedded, seed, mix, OPERATIONS, CLIENTS)
    print("\n".join([*done.history, *(f"{what}: {times}" for what, times in sorted(done.outcomes.items()))]))
    assert list(dict.fromkeys(done.broken))[:SHOWN] == []
    assert left_over(embedded) == []
