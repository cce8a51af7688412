"""The dialog of a form: fields that become one request, checked as they are typed."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input

from forktui.actions.action import Verb
from forktui.actions.form import Field, Form, Look, Question, Values
from forktui.client.api import SupervisorClient
from forktui.model.world import World
from forktui.tui.keys_in_order import HoldsKeys
from forktui.tui.later import later
from forktui.tui.messages import Asking, Wanted
from forktui.tui.screens.dialogs import Confirm, Dialog, Refusal
from forktui.tui.widgets.prose import Prose
from forktui.tui.widgets.text_field import Choice, TextField
from supervisor.models import Instance

LOOK_SECONDS = 0.15
"""How long nothing is typed before the supervisor is asked what it says of the values."""
HINT = "Enter does it, Tab goes on, Esc cancels"


class Entry(Vertical):
    """A field with its label, and below it what is refused of it."""

    def __init__(self, field: Field, value: str) -> None:
        super().__init__(classes="entry")
        self.field = field
        self.input: TextField | Choice
        if field.choices:
            self.input = Choice(field.choices, value, id=field.name)
        else:
            self.input = TextField(value, field.hint, id=field.name)
        self._refusal = Prose(classes="refused")

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line"):
            yield Prose(self.field.label, classes="label")
            yield self.input
        yield self._refusal

    def on_mount(self) -> None:
        self.offer(self.field.choices)

    def offer(self, choices: tuple[str, ...]) -> None:
        """Let one of these be chosen."""
        if isinstance(self.input, Choice):
            self.input.offer(choices)
            self.display = self.field.asked_alone or len(self.input.choices) > 1

    def refuse(self, reason: str) -> None:
        """Say why its value cannot be used, or nothing where it can."""
        self._refusal.say(reason)


class FormDialog(Dialog, HoldsKeys):
    """Asks for what a verb takes. It stays, with all that was typed, until the supervisor has taken it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel"),
        Binding("enter", "submit", "Do it"),
        Binding("down", "app.focus_next", "The next field"),
        Binding("up", "app.focus_previous", "The field before"),
    ]

    def __init__(
        self, verb: Verb, form: Form, targets: Sequence[Instance], refusal: Refusal, given: Values | None = None
    ) -> None:
        super().__init__(targets, refusal)
        self._verb = verb
        self._form = form
        self._given = given
        """What a command line has said: it is tried at once."""
        self._entries = [Entry(field, (given or {}).get(field.name, field.default)) for field in form.fields]
        self._told = Prose(classes="told")
        self._hint = Prose(HINT, classes="hint")
        self._look_soon: asyncio.TimerHandle | None = None
        self._tried: Values = {}
        self._under_way = self._sent = False
        self.answered = asyncio.Event()
        self.answered.set()

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Prose(self._form.asked, classes="question")
            yield Prose("\n".join(self._form.says), classes="consequences")
            yield from self._entries
            yield self._told
            yield self._meanwhile
            yield self._notice
            yield self._hint

    def on_mount(self) -> None:
        self._look()
        if self._given is not None:
            self.action_submit()

    @property
    def values(self) -> dict[str, str]:
        """What is typed and chosen."""
        return {entry.field.name: entry.input.value for entry in self._entries}

    def hear(self, world: World) -> None:
        super().hear(world)
        # The supervisor has begun: what becomes of it is told in the tree.
        if self._sent and any((one := world.instances.get(i)) is not None and one.busy for i in self.ids):
            self.taken()

    def taken(self) -> None:
        """Close: the supervisor does it, or has done it."""
        if self.is_current:
            self.answered.set()
            self.dismiss({})

    def refuse(self, failures: Sequence[str]) -> None:
        """Say why the supervisor has not done it; everything can be changed and tried again."""
        self._sent = False
        self._set_under_way(False)
        self.notify_of(failures)

    @on(Input.Changed)
    @on(Choice.Changed)
    def _changed(self) -> None:
        self.notify_of([])
        self._check()
        if self._look_soon is not None:
            self._look_soon.cancel()
        self._look_soon = later(self, LOOK_SECONDS, self._look)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self.action_submit()

    def action_cancel(self) -> None:
        self.answered.set()
        self.dismiss(None)

    def action_submit(self) -> None:
        """Try the values, unless they are being tried already."""
        if self._under_way or not self._check(focus=True) or self.refused():
            return
        self.notify_of([])
        self._set_under_way(True)
        self._tried = self.values
        if self._form.review is None:
            self._reviewed(None)
            return
        review, ids, values = self._form.review, self.ids, self._tried

        async def ask(client: SupervisorClient, world: World) -> Question | None:
            return await review(client, ids, values)

        self.post_message(Asking(self, "review", ask, self._reviewed, lambda refusal: self.refuse([refusal])))

    def _reviewed(self, question: Question | None) -> None:
        if question is None:
            self._send({})
        elif self.is_current:
            self.answered.set()
            self.app.push_screen(Confirm(question, self.targets, self._refusal), self._answered)

    def _answered(self, adds: Values | None) -> None:
        if adds is None:
            self._set_under_way(False)
        else:
            self._send(adds)

    def _send(self, adds: Values) -> None:
        self._sent = True
        self._set_under_way(True)
        self.post_message(Wanted(self._verb, self.ids, {**self._tried, **adds}, self))

    def _set_under_way(self, under_way: bool) -> None:
        self._under_way = under_way
        (self.answered.clear if under_way else self.answered.set)()
        self._hint.say("The supervisor is asked; Esc leaves it to it" if under_way else HINT)

    def _check(self, *, focus: bool = False) -> bool:
        """Say below each field what is refused of it; return whether nothing is."""
        refused = self._form.refused(self.values)
        for entry in self._entries:
            entry.refuse(refused.get(entry.field.name, ""))
        wrong = [entry for entry in self._entries if entry.field.name in refused]
        if wrong and focus:
            wrong[0].input.focus()
        return not wrong

    def _look(self) -> None:
        """Ask what the supervisor says of the values, where it can be said at all."""
        self._look_soon = None
        if self._form.look is None:
            return
        refused = {*self._form.refused(self.values)} - {"name"}
        if refused:
            self._show_look(Look())
            return
        ids, values, look = self.ids, self.values, self._form.look

        async def ask(client: SupervisorClient, world: World) -> Look:
            return await look(client, ids, values)

        def tell(told: Look) -> None:
            if values == self.values:
                self._show_look(told)

        self.post_message(Asking(self, "look", ask, tell, lambda refusal: tell(Look((refusal,)))))

    def _show_look(self, look: Look) -> None:
        self._told.say("\n".join(look.lines))
        for entry in self._entries:
            if entry.field.name in look.choices:
                entry.offer(look.choices[entry.field.name])
