"""The fork forest keeps its invariants under any sequence of forks and deletions."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.lineage import Descent, forest

STEPS = st.lists(
    st.tuples(st.sampled_from(["root", "share_memory", "copy", "delete"]), st.integers(0, 10**6)), max_size=60
)


@given(STEPS)
def test_counts_are_the_live_share_memory_children(steps: list[tuple[str, int]]) -> None:
    alive: dict[str, Descent] = {}
    for number, (step, choice) in enumerate(steps):
        chosen = list(alive)[choice % len(alive)] if alive else None
        if step == "delete" and chosen is not None:
            if forest(alive.values()).fork_count(chosen) == 0:
                del alive[chosen]
        elif step == "root" or chosen is None:
            alive[f"i{number}"] = Descent(f"i{number}", f"n{number}")
        elif step in ("share_memory", "copy"):
            kind = "share_memory" if step == "share_memory" else "copy"
            alive[f"i{number}"] = Descent(f"i{number}", f"n{number}", chosen, kind)  # type: ignore[arg-type]
    built = forest(alive.values())
    for member in alive.values():
        children = [other.id for other in alive.values() if other.source_id == member.id]
        shared = [child for child in children if alive[child].fork_kind == "share_memory"]
        assert list(built.children.get(member.id, ())) == children
        assert built.fork_count(member.id) == len(shared)
        assert built.holder_names(member.id) == tuple(alive[child].name for child in shared)
        below = built.descendants(member.id)
        assert len(set(below)) == len(below)
        assert all(member.id in built.ancestors(descendant) for descendant in below)
        if member.fork_kind == "share_memory":
            assert member.source_id in alive, "a source that a share_memory fork holds is never deleted"


def test_a_chain_of_ten_thousand_forks_is_walked() -> None:
    chain = [Descent("0", "n0"), *(Descent(str(n), f"n{n}", str(n - 1), "share_memory") for n in range(1, 10_000))]
    built = forest(chain)
    assert len(built.descendants("0")) == 9_999
    assert built.ancestors("9999")[-1] == "0"


def test_a_fork_whose_source_is_gone_is_a_root() -> None:
    built = forest([Descent("a", "a", "gone", "copy")])
    assert built.ancestors("a") == ()
    assert "gone" not in built.children


def test_descendants_come_after_their_sources() -> None:
    built = forest([Descent("r", "r"), Descent("a", "a", "r"), Descent("b", "b", "a"), Descent("c", "c", "r")])
    assert built.descendants("r") == ("a", "b", "c")
