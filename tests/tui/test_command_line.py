"""The `:` line: what is understood, what is said of the rest, and what Tab makes of a beginning."""

import pytest

from forktui.actions.action import Verb
from forktui.actions.command_line import Command, NotUnderstoodError, completed, completions, understood, usage
from forktui.actions.registry import ACTIONS, BY_WORD
from forktui.model.world import World
from forktui.view.columns import NAME
from supervisor.models import State
from tests.harness.pilot import Wishes, host, tree, until, until_shown
from tests.harness.told_hosts import family, instance, world_of

WORLD = world_of(*family(), instance("20", state=State.STANDBY))


def parsed(line: str, world: World = WORLD) -> Command | None:
    """What a line asks for, with the source under the cursor."""
    return understood(line, world, lambda verb: () if verb.makes else ("source",))


@pytest.mark.parametrize(
    ("line", "word", "ids", "values"),
    [
        ("fork", "fork", ("source",), {}),
        ("fork fork-1", "fork", ("fork-1",), {}),
        ("fork fork-1 --name a", "fork", ("fork-1",), {"name": "a"}),
        ("fan-out 20", "fan-out", ("source",), {"count": "20"}),
        ("fan-out 20 20", "fan-out", ("20",), {"count": "20"}),
        ("fan-out source", "fan-out", ("source",), {}),
        ("fan-out source 3 --prefetch=off", "fan-out", ("source",), {"count": "3", "prefetch": "off"}),
        ("  delete   fork-1 fork-2 fork-1 ", "delete", ("fork-1", "fork-2"), {}),
        ("start fork-1", "restore", ("fork-1",), {}),
        ("standby", "standby", ("source",), {}),
        ("create web", "create", (), {"name": "web"}),
        ("create web image=pagewalker", "create", (), {"name": "web", "image": "pagewalker"}),
        ("fork record=on", "fork", ("source",), {"record": "on"}),
        ("fan-out 3 prefetch=off", "fan-out", ("source",), {"count": "3", "prefetch": "off"}),
        ("fan-out source 3 name-prefix=a memory_backend=file", "fan-out", ("source",), {"memory_backend": "file"}),
        ("create web --vcpus 2 --cmd 'hot_mib=4 passes=0'", "create", (), {"cmd": "hot_mib=4 passes=0"}),
    ],
)
def test_a_verb_takes_whom_it_names_and_its_options(
    line: str, word: str, ids: tuple[str, ...], values: dict[str, str]
) -> None:
    command = parsed(line)
    assert command is not None
    assert (command.action.word, command.ids) == (word, ids)
    assert command.values.items() >= values.items()


@pytest.mark.parametrize(
    ("line", "word", "words"),
    [
        ("quit", "quit", ""),
        ("q", "quit", ""),
        ("sort", "sort", ""),
        ("sort faults", "sort", "faults"),
        ("sort priv", "sort", "private"),
        ("sort age rev", "sort", "age reversed"),
        ("filter state:running  web's", "filter", "state:running  web's"),
        ("help fan out", "help", "fan out"),
    ],
)
def test_an_action_on_the_screen_takes_the_words_that_follow(line: str, word: str, words: str) -> None:
    command = parsed(line)
    assert command is not None
    assert (command.action.word, command.words) == (word, words)


@pytest.mark.parametrize(
    ("line", "takes"),
    [
        ("fan-out", ""),
        ("nothing ", ""),
        ("quit ", ""),
        ("stop ", "stop [INSTANCE...]"),
        ("create ", "create NAME image="),
        ("fan-out 20 ", "fan-out [INSTANCE] [COUNT] name-prefix="),
        ("sort faults", "sort name | state |"),
    ],
)
def test_below_the_line_is_what_the_verb_takes(line: str, takes: str) -> None:
    assert usage(line).startswith(takes)
    assert bool(usage(line)) is bool(takes)


@pytest.mark.parametrize("verb", [one for one in ACTIONS if isinstance(one, Verb)], ids=lambda verb: verb.word)
def test_it_names_every_option_that_the_verb_has(verb: Verb) -> None:
    said = usage(f"{verb.word} ").split()
    for field in verb.fields:
        assert any(field.name.upper() in word or word.startswith(f"{field.assigned}=") for word in said), field.name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("frok", "frok is not known: fork? known are accept, alarms, all-details,"),
        ("\x1b", "is not known: known are"),
        ("quit now", "quit takes nothing: leave now out"),
        ("sort size", "size is not known: sort takes name, state,"),
        ("fork nobody", "nobody: there is no such instance"),
        ("delete fork-", "fork-: several ids begin so"),
        ("delete fork-1 --force", "--force is not known to delete: it takes no options"),
        ("fork --nam a", "--nam is not known to fork: it takes --name,"),
        ("fork --name", "--name takes a value"),
        ("fork --name a --name b", "--name is given twice"),
        ("fork --name 'a", "close the quotes"),
        ("fork --name A_b", "name: 'A_b' is refused: it takes lowercase letters"),
        ("fork --name fork-2", "name: 'fork-2' is refused: there is an instance of that name"),
        ("fork --prefetch some", "--prefetch takes before_resume, concurrent, off"),
        ("fork fork-1 --prefetch off", "fork: prefetch is not for these"),
        ("fan-out 0", "count: '0' is refused"),
        ("fan-out many", "count: 'many' is refused"),
        ("fan-out source fork-1 3", "fan-out takes one instance: 2 are named"),
        ("create", None),
        ("create a b", "create takes one name: what is b? There are image=, size=,"),
        ("fork source recrod=on", "--recrod is not known to fork: it takes --name,"),
        ("fork record=sometimes", "--record takes auto, on, off"),
        ("fork record=", "--record takes a value"),
        ("create web --vcpus 99", "vcpus: '99' is refused"),
    ],
)
def test_what_is_not_understood_is_said_with_what_would_be(line: str, said: str | None) -> None:
    if said is None:
        assert parsed(line) == Command(BY_WORD["create"])
        return
    with pytest.raises(NotUnderstoodError) as refused:
        parsed(line)
    assert said in str(refused.value)


def test_an_empty_line_asks_for_nothing() -> None:
    assert parsed("") is None
    assert parsed("   ") is None


def test_every_word_is_understood() -> None:
    for action in ACTIONS:
        for word in (action.word, *action.also):
            command = parsed(word)
            assert command is not None
            assert command.action is action
            assert isinstance(action, Verb) or command.words == ""


@pytest.mark.parametrize(
    ("line", "found", "becomes"),
    [
        ("chec", ["checkpoint"], "checkpoint "),
        ("f", ["fan-out", "filter", "fork"], "f"),
        ("xyz", [], "xyz"),
        ("delete f", ["fork-1", "fork-2", "fork-3"], "delete fork-"),
        ("delete fork-1 s", ["source"], "delete fork-1 source "),
        ("sort p", ["prefetch", "passes", "private"], "sort p"),
        ("sort age rev", ["reversed"], "sort age reversed "),
        ("fork --p", ["--prefetch"], "fork --prefetch "),
        ("fork --prefetch b", ["before_resume"], "fork --prefetch before_resume "),
        ("fork prefetch=b", ["prefetch=before_resume"], "fork prefetch=before_resume "),
        ("fork x=b", [], "fork x=b"),
        ("create f", [], "create f"),
        ("quit x", [], "quit x"),
    ],
)
def test_tab_completes_as_far_as_there_is_no_choice(line: str, found: list[str], becomes: str) -> None:
    assert completions(line, WORLD) == found
    assert completed(line, WORLD) == becomes


# On the screen


@pytest.mark.usefixtures("plain_environment")
async def test_a_refusal_stays_on_the_line_with_what_was_typed() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("colon", *"standby", "enter")
        assert ": standby" in await until_shown(pilot, "Standby refused: source is in Standby already")
        await pilot.press("space", *"fork-2", "enter")
        await until(pilot, lambda: app.wishes == [("standby", ("fork-2",), 1)])
        assert pilot.app.focused is tree(pilot)
        await pilot.press("colon", "up")
        await until_shown(pilot, ": standby fork-2")
        await pilot.press("up")
        await until_shown(pilot, ": standby  ")
        await pilot.press("escape", "j")
        assert tree(pilot).cursor_id == "fork-1"


@pytest.mark.usefixtures("plain_environment")
async def test_a_line_with_a_number_tries_it_at_once_and_asks_where_it_is_large() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("colon", *"fan-out 20 --name-prefix web", "enter")
        await until(pilot, lambda: app.wishes == [("fan-out", ("source",), 20)])
        assert app.values[0]["name_prefix"] == "web"
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.press("colon", *"fan-out 120", "enter")
        await until_shown(pilot, "Make 120 forks?")
        await pilot.press("enter", "escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert len(app.wishes) == 1


@pytest.mark.usefixtures("plain_environment")
async def test_a_line_sorts_filters_helps_and_leaves() -> None:
    app = host(family())
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("colon", *"sort name", "enter")
        await until(pilot, lambda: tree(pilot).shown.view.sort.measure is NAME.measure)
        await pilot.press("colon", *"filter fork-2", "enter")
        await until(pilot, lambda: tree(pilot).shown.query == "fork-2")
        await pilot.press("colon", *"help detach", "enter")
        shown = await until_shown(pilot, "Detach")
        assert "Fan out" not in shown.split("Esc closes")[0].split("Keys")[1]
        await pilot.press("escape", "escape", "colon", *"quit", "enter")
    assert app.return_code == 0
