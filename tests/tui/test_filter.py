"""What is looked for in the tree: words and fields, all of which an instance must have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.model.filter import FIELDS, Filter, filter_of
from forktui.model.reducing import reduce
from forktui.model.world import World
from supervisor.models import Guest, Instance, InstanceStatistics, Operation, State, Template, TemplateChanged
from tests.harness.told_hosts import fork_of, instance, locked_source, world_of


def host() -> World:
    """One of each kind, and a template of `base`."""
    world = world_of(
        locked_source("base", ["web-1"], hypervisor="firecracker", memory_backend="file"),
        fork_of("base", "web-1", template_id="t0", operation=Operation(verb="standby")),
        fork_of("base", "web-2", template_id="t0", recording=True, state=State.STOPPED),
        instance("cold", image="debian"),
        statistics=[InstanceStatistics(id="cold", guest=Guest(corrupt="0x1000"))],
    )
    template = Template(id="t0", instance_id="base", size_bytes=1, page_size=4096, fork_count=2, layers=1)
    return reduce(world, TemplateChanged(template=template))


def found(query: str, world: World | None = None) -> set[str]:
    """Who is found."""
    known = world or host()
    matches = filter_of(query).predicate(known)
    return {one.id for one in known.instances.values() if matches(one)}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", {"base", "web-1", "web-2", "cold"}),
        ("WEB", {"web-1", "web-2"}),
        ("web state:running", {"web-1"}),
        ("state:st", {"base", "web-2"}),
        ("STATE:Stopped", {"web-2"}),
        ("vmm:fire", {"base"}),
        ("backend:uffd", {"web-1", "web-2"}),
        ("backend:none", {"cold"}),
        ("name:eb-", {"web-1", "web-2"}),
        ("id:eb-", set()),
        ("id:web", {"web-1", "web-2"}),
        ("image:deb", {"cold"}),
        ("kind:share", {"web-1", "web-2"}),
        ("kind:boot", {"base", "cold"}),
        ("template:t0", {"web-1", "web-2"}),
        ("template:base", {"web-1", "web-2"}),
        ("template:ase", set()),
        ("is:locked", {"base"}),
        ("is:busy", {"web-1"}),
        ("is:recording is:ended", {"web-2"}),
        ("is:corrupt", {"cold"}),
        ("state:", {"base", "web-1", "web-2", "cold"}),
    ],
)
def test_all_words_and_fields_must_be_there(query: str, names: set[str]) -> None:
    assert found(query) == names


@pytest.mark.parametrize("query", ["status:running", "a:b:c", ":x", "web http://x"])
def test_an_unknown_field_finds_nothing_and_the_known_ones_are_named(query: str) -> None:
    wanted = filter_of(query)
    assert found(query) == set()
    assert all(f"{name}:" in wanted.problem for name in FIELDS)
    assert wanted.pattern is None


def test_a_value_that_cannot_be_is_said_with_those_that_can() -> None:
    wanted = filter_of("web state:runing")
    assert found("web state:runing") == set()
    expected = "state:runing is not known; there are created, initializing, running, paused,"
    assert wanted.problem.startswith(expected)


@given(st.text())
def test_whatever_is_typed_is_a_filter_and_finds_no_more_than_there_is(query: str) -> None:
    wanted = filter_of(query)
    assert bool(wanted) == bool(query.split())
    if wanted.problem:
        assert found(query) == set()
    if (pattern := wanted.pattern) is not None:
        assert pattern.search("x") is None or "x" in query.lower()


values = st.text("abew-012", min_size=1, max_size=3)
parts = st.one_of(
    values,
    st.builds("{}:{}".format, st.sampled_from([name for name, field in FIELDS.items() if not field.words]), values),
    st.sampled_from([f"{name}:{word}" for name, field in FIELDS.items() for word in field.words]),
)


@given(st.lists(parts, max_size=4), st.lists(parts, max_size=4))
def test_more_is_asked_by_every_part_whatever_the_order_and_the_case(one: list[str], other: list[str]) -> None:
    both = " ".join([*one, *other])
    assert found(both) == found(" ".join(one)) & found(" ".join(other))
    assert found(both) == found("  ".join([*other, *one]).upper())
    assert not filter_of(both).problem


@given(parts)
def test_a_field_is_one_term_and_a_word_one_word(part: str) -> None:
    name, colon, value = part.partition(":")
    assert filter_of(part) == (Filter(terms=((name, value),)) if colon else Filter(words=(part,)))


def test_what_is_looked_for_in_a_name_is_marked_in_it() -> None:
    pattern = filter_of("b.1 name:a-2 state:running").pattern
    assert pattern is not None
    assert [bool(pattern.search(name)) for name in ("b.1", "bx1", "A-2", "running")] == [True, False, True, False]


def test_every_field_can_say_something_of_an_instance_of_which_nothing_is_known() -> None:
    bare: Instance = instance("vm", state=State.CREATED, image="")
    world = world_of(bare)
    for name, field in FIELDS.items():
        assert all(value == value.lower() for value in field.of(world, bare)), name
