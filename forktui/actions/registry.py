"""Every action once, in the order of help and footer."""

from typing import Final

from forktui.actions import on_screen
from forktui.actions.action import Action, OnScreen, Verb
from forktui.actions.creation import CREATE
from forktui.actions.deletion import DELETE
from forktui.actions.forks import CHECKPOINT, FAN_OUT, FORK
from forktui.actions.states import ACCEPT, CANCEL, DETACH, RESTORE, STANDBY, STOP

VERBS: Final[tuple[Verb, ...]] = (
    FORK,
    FAN_OUT,
    CHECKPOINT,
    DELETE,
    STANDBY,
    RESTORE,
    STOP,
    DETACH,
    ACCEPT,
    CANCEL,
    CREATE,
)
ON_SCREEN: Final[tuple[OnScreen, ...]] = tuple(one for one in vars(on_screen).values() if isinstance(one, OnScreen))
ACTIONS: Final[tuple[Action, ...]] = (*VERBS, *ON_SCREEN)
BY_WORD: Final = {word: action for action in ACTIONS for word in (action.word, *action.also)}
