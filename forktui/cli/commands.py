"""The supervisor's verbs as commands, in the order in which the help has them."""

from typing import Final

from forktui.cli.cancelling import CANCEL
from forktui.cli.console import CONSOLE
from forktui.cli.forks import CHECKPOINT, FAN_OUT, FORK
from forktui.cli.images import IMAGE
from forktui.cli.instances import CREATE, DELETE, VERBS
from forktui.cli.looking import IMAGES, LOGS, LS
from forktui.cli.waiting import WAIT

COMMANDS: Final = (LS, IMAGES, IMAGE, CREATE, FORK, CHECKPOINT, FAN_OUT, *VERBS, DELETE, WAIT, CANCEL, LOGS, CONSOLE)
