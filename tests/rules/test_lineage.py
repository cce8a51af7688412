"""The fork forest keeps its invariants under any sequence of forks and deletions."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from supervisor.rules.lineage import Descent, Link, forest, given_back, in_circles, sources_first

STEPS = st.lists(
    st.tuples(st.sampled_from(["root", "share_memory", "copy", "let go", "delete"]), st.integers(0, 10**6)), max_size=60
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
        elif step == "let go":
            if alive[chosen].source_id is not None:
                alive[chosen] = replace(alive[chosen], fork_kind="copy")
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


@given(st.permutations(range(12)), st.lists(st.integers(-1, 14), min_size=12, max_size=12))
def test_a_fork_comes_after_its_source_and_whatever_else_as_it_was_given(order: list[int], sources: list[int]) -> None:
    """A source may be gone, or not be there yet; in a circle some fork comes first, and none is lost."""
    given = {str(n): None if sources[n] < 0 else str(sources[n]) for n in order}
    found = sources_first(given)
    assert sorted(found) == sorted(given)
    circles = in_circles(given)
    for n in set(given) - circles:
        source = given[n]
        assert source not in given or found.index(source) < found.index(n)
    if all(source not in given for source in given.values()):
        assert found == list(given)


def test_a_chain_of_ten_thousand_forks_from_the_last_to_the_first_is_turned_round() -> None:
    chain = {str(n): str(n - 1) for n in range(10_000, 0, -1)}
    assert sources_first(chain) == [str(n) for n in range(1, 10_001)]


@given(st.lists(st.integers(-1, 30), min_size=1, max_size=60))
def test_generations_hold_a_tree_once_and_every_fork_before_its_source(sources: list[int]) -> None:
    # Each is forked from an earlier one, or is a root.
    members = [
        Descent(str(number), str(number), str(source) if 0 <= source < number else None, "copy")
        for number, source in enumerate(sources)
    ]
    built = forest(members)
    for member in members:
        order = [one for generation in built.generations(member.id) for one in generation]
        assert sorted(order) == sorted([member.id, *built.descendants(member.id)])
        place = {one: number for number, one in enumerate(order)}
        assert all(place[one] < place[built.members[one].source_id or ""] for one in order if one != member.id)


def test_a_chain_of_ten_thousand_has_as_many_generations() -> None:
    chain = [Descent("0", "n0"), *(Descent(str(n), f"n{n}", str(n - 1), "copy") for n in range(1, 10_000))]
    assert len(forest(chain).generations("0")) == 10_000


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=6), st.integers(0, 3))
def test_a_file_is_given_back_once_and_only_with_its_last_name(removals: list[list[int]], elsewhere: int) -> None:
    names = [sum(removal.count(file) for removal in removals) for file in range(6)]
    # The first files have a name more that is not removed.
    links = [[Link((0, f), names[f] + (f < elsewhere), 1 << f) for f in removal] for removal in removals]
    freed = given_back(links)
    assert sum(freed) == sum(1 << f for f in range(elsewhere, 6) if names[f])
    for number, removal in enumerate(removals):
        last = {f for f in removal if f >= elsewhere and not any(f in later for later in removals[number + 1 :])}
        assert freed[number] == sum(1 << f for f in last)
