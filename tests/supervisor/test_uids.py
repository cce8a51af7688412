"""Uids for VMs and page servers: none twice while it is written down, and none of somebody else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import InsufficientResourcesError
from supervisor.store.uids import Uids

RANGE = range(100_000, 100_024)
FOREIGN = frozenset({100_003, 100_004, 7})


@given(st.lists(st.one_of(st.just("take"), st.integers(0, 30)), max_size=120), st.booleans())
def test_no_uid_is_given_while_a_record_has_it_also_to_a_supervisor_that_was_started_anew(
    steps: list[str | int], anew: bool
) -> None:
    recorded: set[int] = set()

    def made() -> Uids:
        return Uids(RANGE, Path("/data"), FOREIGN, lambda: recorded)

    uids = made()
    for step in steps:
        if step == "take" and len(recorded) == len(RANGE) - 3:
            with pytest.raises(InsufficientResourcesError, match="all 23 uids of jail_uids are taken: delete"):
                uids.free()
        elif step == "take":
            uid = uids.free()
            assert uid in RANGE
            assert uid not in recorded | FOREIGN | {uids.gid}
            recorded.add(uid)
        elif recorded:
            recorded.discard(sorted(recorded)[int(step) % len(recorded)])
        if anew:
            uids = made()


def test_a_uid_that_was_let_go_comes_again_only_after_all_others() -> None:
    uids = Uids(RANGE, Path("/data"), (), set)
    given = [uids.free() for _ in range(2 * len(RANGE[1:]))]
    assert sorted(given[: len(given) // 2]) == list(RANGE[1:])
    assert given[: len(given) // 2] == given[len(given) // 2 :]


def test_supervisors_of_one_host_with_one_range_begin_at_different_places() -> None:
    wide = range(1_879_048_192, 1_895_825_408)
    firsts = {Uids(wide, Path(f"/data/{name}"), (), set).free() for name in range(50)}
    assert len(firsts) == 50
    # And each where it began before.
    assert firsts == {Uids(wide, Path(f"/data/{name}"), (), set).free() for name in range(50)}


def test_the_group_is_no_process_s_user() -> None:
    uids = Uids(RANGE, Path("/data"), (), set)
    assert uids.gid == RANGE[0]
    assert uids.gid not in {uids.free() for _ in range(100)}
