"""The help: every action under its section, and those of them that have the words which are searched for."""

import textwrap
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import Input

from forktui.actions.action import Action, Group
from forktui.actions.registry import ACTIONS
from forktui.tui.screens.reading import Reading
from forktui.tui.widgets.text_field import TextField
from forktui.view.styled_lines import Line, left

_KEY_WIDTH = 12
_LABEL_WIDTH = 16
_WORDS_WIDTH = 32
"""With less there would be a few words in a line."""
_INDENT = 4
_OWN = (
    ("^p", "Palette", "These actions by name, themes, a screenshot as SVG"),
    ("^s", "Screenshot", "The screen as SVG, into a file whose path is said"),
    ("^z", "Suspend", "Back to the shell; fg goes on"),
    ("^c", "Leave", "At the second press"),
)
WORDS = (
    ("source", "An instance that others were forked of. While forks share its memory it is locked, and does not run"),
    ("template", "A source's memory image as its forks read it, with the page server that serves them"),
    ("page server", "A process that answers the page faults of a template's forks (userfaultfd)"),
    ("hot pages", "Pages that the first fork needed, recorded so that later forks have them prefetched"),
    ("prefetch", "Hot pages that are put into a fork's memory before it resumes, or while it runs"),
    ("residual", "Faults of a fork that had pages prefetched: pages that were not among them"),
    ("around", "Pages that were answered beside the one that was asked for, since they lie near it"),
    ("private", "Memory that one VM alone holds; shared is memory that it holds with others, counted once"),
    ("passes", "How often the guest pagewalker has verified all of its memory"),
    ("(no pager)", "In parentheses or small letters: an alarm whose cause has gone, until it is acknowledged"),
    ("embedded VMM", "forktui's own, with a simulated CPU, where no firecracker is found; n says why it was chosen"),
    ("...", "A title line that begins with three dots has columns for which there is no room: o lists them"),
)
"""What is shown under words of its own."""


class Help(Reading):
    """Every key. `moves` are keys of the tree's own and what they do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Before the pane's own search, which leaves what does not match.
        Binding("slash", "search", "Search", priority=True),
        Binding("escape", "end", "Close"),
    ]

    def __init__(self, moves: Sequence[tuple[str, str]], width: int, words: str = "") -> None:
        super().__init__("Keys", help_lines(moves, width, words))
        self._moves = moves
        self._width = width
        self._search = TextField(words, "words in what is listed", id="search")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(".reading").mount(self._search, before=self.view)
        self._search.display = bool(self._search.value)
        self.view.focus()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self.view.replace(help_lines(self._moves, self._width, event.value) or [[("Nothing matches.", "muted")]])

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._search.display = bool(self._search.value)
        self.view.focus()

    def action_search(self) -> None:
        self._search.display = True
        self._search.focus()

    def action_end(self) -> None:
        """End the search, or leave."""
        if not self._search.display:
            self.dismiss()
            return
        self._search.value = ""
        self._search.display = False
        self.view.focus()


def help_lines(moves: Sequence[tuple[str, str]], width: int, words: str = "") -> list[Line]:
    """What has all the words, by section, in `width` cells; `moves` are keys and what they do, of the tree's own.

    Last come the words of the screen themselves.
    """
    lines: list[Line] = []
    for group in Group:
        entries = [(key, "", does) for key, does in moves] if group is Group.TREE else []
        entries += [_entry(action) for action in ACTIONS if action.group is group]
        entries += _OWN if group is Group.APPLICATION else []
        lines += _section(group.value, entries, width, words)
    return (lines + _section("Words", [("", word, means) for word, means in WORDS], width, words))[1:]


def _section(title: str, entries: Sequence[tuple[str, str, str]], width: int, words: str) -> list[Line]:
    """Those entries that have all the words, below an empty line and a title; nothing where none has."""
    kept = [entry for entry in entries if all(word in " ".join(entry).lower() for word in words.lower().split())]
    found = [line for entry in kept for line in _wrapped(*entry, width)]
    return [[], [(title, "title")], *found] if found else []


def _entry(action: Action) -> tuple[str, str, str]:
    return action.key, action.name, f"{action.help} (:{action.word})"


def _wrapped(key: str, label: str, words: str, width: int) -> list[Line]:
    """An entry in columns, or what it does below its key where there is no room for them."""
    begin: Line = [(left(f"  {key}", _KEY_WIDTH), "key"), (label, "strong")]
    indent = _KEY_WIDTH + _LABEL_WIDTH
    if width < indent + _WORDS_WIDTH:
        return [begin, *_indented(_broken(words, max(width - _INDENT, 1)), _INDENT)]
    first, *rest = _broken(words, width - indent)
    return [[begin[0], (left(label, _LABEL_WIDTH), "strong"), (first, "plain")], *_indented(rest, indent)]


def _broken(words: str, width: int) -> list[str]:
    """The words in lines; one with a hyphen may be what one types."""
    return textwrap.wrap(words, width, break_on_hyphens=False)


def _indented(lines: Sequence[str], cells: int) -> list[Line]:
    return [[(" " * cells + line, "plain")] for line in lines]
