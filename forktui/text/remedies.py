"""What would allow a request that the supervisor refused, as a user of forktui can give it.

Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from forktui.text.safe import safe_text
from supervisor.models import ErrorDetail, Remedy


class Failure(Protocol):
    """Why a request failed: an ErrorBody, or an exception with what is in one."""

    @property
    def message(self) -> str:
        """All of it in one sentence, a remedy in the API's words."""

    @property
    def details(self) -> Sequence[ErrorDetail]:
        """The causes; the one that has a remedy is that of the whole."""


class Wording(NamedTuple):
    """What follows the cause: in words of the commands, and of the dashboard's keys."""

    command: str
    dashboard: str


WORDINGS: Final[Mapping[Remedy, Wording]] = {
    Remedy.LIST_INSTANCES: Wording("; `forktui ls` lists them", "; the tree has those that there are"),
    Remedy.LIST_OPERATIONS: Wording("; `forktui ls` shows what is under way", "; the tree shows what is under way"),
    Remedy.LIST_IMAGES: Wording("; `forktui images` lists them", "; `forktui images` lists them"),
    Remedy.READ_EVENTS: Wording(", or look at the dashboard's event pane", ", or look at the event pane (e)"),
    Remedy.CASCADE: Wording(
        ", or give --cascade to delete the whole tree", ", or press d on it alone to delete the whole tree"
    ),
    Remedy.FORCE: Wording(", or give --force", ", or press F and say that it is to be forced"),
    Remedy.FROM_RUNNING: Wording(", or give --from-running for a copy", ", or press f for a copy"),
    Remedy.WITHOUT_FROM_RUNNING: Wording("; leave --from-running out", "; press f again"),
    Remedy.SHARE_MEMORY: Wording("; give --share-memory", "; press f"),
    Remedy.PAGE_SERVER: Wording("; fork it with --share-memory and --memory-backend uffd", "; fork it with f"),
    Remedy.FILE_BACKEND: Wording(", or use --memory-backend file", ", or press f and choose the backend file"),
    Remedy.ACCEPT: Wording(
        ", or have what is there read whole and taken: `forktui accept {parameter}`",
        ", or have what is there of {parameter} read whole and taken (A)",
    ),
    Remedy.ACCEPT_CHANGED: Wording(
        ", or give --changed to take it as another memory",
        ", or choose changed (A) to take it as another memory",
    ),
    Remedy.BOOT_ANEW: Wording(
        ", or fork it with --no-share-memory and --target-state Stopped, and start that",
        ", or use `forktui fork --no-share-memory --target-state Stopped`, and start that",
    ),
    Remedy.HYPERVISOR: Wording("; give --hypervisor={parameter}", "; choose the hypervisor {parameter} (n)"),
}


def in_commands(failure: Failure) -> str:
    """Return why a request failed, with what can be given on the command line."""
    return _worded(failure, lambda wording: wording.command)


def in_dashboard(failure: Failure) -> str:
    """Return why a request failed as safe text, with the keys that can be pressed."""
    return safe_text(_worded(failure, lambda wording: wording.dashboard))


def _worded(failure: Failure, words: Callable[[Wording], str]) -> str:
    """Return the cause with the remedy's words; the message as it is where there is no remedy that is known here."""
    for detail in failure.details:
        if detail.remedy is not None:
            return detail.message + words(WORDINGS[detail.remedy]).format(parameter=detail.parameter)
    return failure.message
