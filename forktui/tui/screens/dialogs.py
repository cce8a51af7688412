"""What is asked about instances before something is done to them, and the questions that Yes or No answers."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button

from forktui.actions.action import Plan
from forktui.actions.form import Question, Values
from forktui.client.api import SupervisorClient
from forktui.model.world import World
from forktui.tui.messages import Asking
from forktui.tui.sparing import Sparing
from forktui.tui.widgets.prose import Prose
from forktui.view.meanwhile import changes
from supervisor.models import Instance

Refusal = Callable[[Sequence[str]], str | None]
"""Why what is asked about cannot be done to these instances as they are at the moment."""


class Dialog(Sparing, ModalScreen[Values | None]):
    """Something about instances, by the ids that it was opened with; it says what has become of them meanwhile."""

    def __init__(self, targets: Sequence[Instance], refusal: Refusal) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self._refusal = refusal
        self._meanwhile = Prose(classes="notice")
        self._notice = Prose(classes="notice")

    @property
    def ids(self) -> list[str]:
        """The instances that it is about."""
        return [one.id for one in self.targets]

    def hear(self, world: World) -> None:
        """Say what has changed about those that it is about."""
        self._meanwhile.say("\n".join(changes(self.targets, world)))

    def notify_of(self, lines: Sequence[str]) -> None:
        """Say what stands against it, or nothing any more."""
        self._notice.say("\n".join(lines))

    def refused(self) -> bool:
        """Whether it cannot be done any more; says why."""
        refusal = self._refusal(self.ids)
        if refusal is not None:
            self.notify_of([refusal])
        return refusal is not None


class Confirm(Dialog):
    """A question that Enter and Escape answer with No; the result is what a Yes adds to the values, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right,h,l", "app.focus_next", "The other answer"),
    ]

    def __init__(
        self, question: Question, targets: Sequence[Instance], refusal: Refusal, plan: Plan | None = None
    ) -> None:
        super().__init__(targets, refusal)
        self._question = question
        self._plan = plan
        self._waits = question.planned
        self._says = Prose("\n".join(question.says), classes="consequences")

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Prose(self._question.asked, classes="question")
            yield self._says
            yield self._meanwhile
            yield self._notice
            with Horizontal(classes="answers"):
                yield Button("No", id="no")
                yield Button(Text(f"{self._question.yes} (y)"), id="yes", variant="error")

    def on_mount(self) -> None:
        self.query_one("#no").focus()
        if self._plan is not None:
            plan, ids = self._plan, self.ids

            async def ask(client: SupervisorClient, world: World) -> tuple[str, ...]:
                return await plan(client, world, ids)

            self.post_message(Asking(self, "plan", ask, self._planned, lambda refusal: self.notify_of([refusal])))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.action_answer(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        if not answer:
            self.dismiss(None)
        elif self._waits:
            self.notify_of(["What goes is not known yet: wait until it is said"])
        elif not self.refused():
            self.dismiss(self._question.adds)

    def _planned(self, lines: Sequence[str]) -> None:
        if self._waits:
            self._waits = False
            self.notify_of([])
        if lines:
            self._says.say("\n".join(lines))
