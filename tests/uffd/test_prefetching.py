"""Prefetching: how a list is cut into what is copied at once."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.uffd.hot_pages import Run
from supervisor.uffd.prefetching import slices

RUNS = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(1, 500)).map(lambda run: Run(run[0], sum(run))), max_size=20
)


@given(RUNS, st.integers(1, 200))
def test_slices_have_all_pages_in_their_order_and_one_size(runs: list[Run], most: int) -> None:
    cut = list(slices(runs, most))
    sizes = [sum(end - start for start, end in piece) for piece in cut]
    assert all(size == most for size in sizes[:-1])
    assert all(0 < size <= most for size in sizes)
    assert [page for piece in cut for start, end in piece for page in range(start, end)] == [
        page for start, end in runs for page in range(start, end)
    ]
    assert all(start < end for piece in cut for start, end in piece)
