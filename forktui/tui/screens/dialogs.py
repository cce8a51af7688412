"""The questions that are asked before something is done."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from supervisor.models import FAN_OUT_LIMIT

DEFAULT_COUNT = 8


class Confirm(ModalScreen[bool]):
    """A question that Enter and Escape answer with No."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right,h,l", "app.focus_next", "The other answer"),
    ]

    def __init__(self, question: str, consequences: Sequence[str], yes: str) -> None:
        super().__init__()
        self._question = question
        self._consequences = consequences
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._question), classes="question")
            yield Static(Text("\n".join(self._consequences)), classes="consequences")
            with Horizontal(classes="answers"):
                yield Button("No", id="no")
                yield Button(Text(f"{self._yes} (y)"), id="yes", variant="error")

    def on_mount(self) -> None:
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class FanOutPrompt(ModalScreen[int | None]):
    """Asks how many forks to make; None where the operator has thought better of it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, source: str, facts: str) -> None:
        super().__init__()
        self._source = source
        self._facts = facts

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(f"How many forks of {self._source}?"), classes="question")
            yield Static(Text(self._facts), classes="consequences", id="fan-out-facts")
            yield Input(str(DEFAULT_COUNT), type="integer", max_length=len(str(FAN_OUT_LIMIT)), select_on_focus=True)
            yield Static(Text("Enter makes them, Esc cancels"), id="hint")

    def show_estimate(self, line: str) -> None:
        """Say how many fit, below the other facts."""
        self.query_one("#fan-out-facts", Static).update(Text(f"{self._facts}\n{line}"))

    def on_input_changed(self, event: Input.Changed) -> None:
        self._say(fan_out_refusal(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        refusal = fan_out_refusal(event.value)
        if refusal is None:
            self.dismiss(int(event.value))
        else:
            self._say(refusal)

    def action_cancel(self) -> None:
        self.dismiss(None)

    def _say(self, refusal: str | None) -> None:
        hint = self.query_one("#hint", Static)
        hint.update(Text(refusal or "Enter makes them, Esc cancels"))
        hint.set_class(refusal is not None, "refused")


def fan_out_refusal(value: str) -> str | None:
    """Why a number of forks cannot be used; None where it can."""
    if not value.strip().isdecimal() or not 1 <= int(value) <= FAN_OUT_LIMIT:
        return f"a number from 1 to {FAN_OUT_LIMIT}, please"
    return None
