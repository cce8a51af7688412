"""What the supervisor says would allow a request, which it says in its API's words, as a user of forktui can give it.

Pure.
"""

from typing import Final, NamedTuple

from forktui.text.safe import safe_text


class Remedy(NamedTuple):
    """The same in the words of the API, of the commands, and of the dashboard's keys."""

    api: str
    command: str
    dashboard: str


REMEDIES: Final = (
    Remedy("GET /instances lists them", "`forktui ls` lists them", "the tree has those that there are"),
    Remedy("GET /events streams them", "the dashboard's event pane shows them", "the event pane (e) shows them"),
    Remedy("give cascade=true to delete", "give --cascade to delete", "press d on it alone to delete"),
    Remedy("give force=true", "give --force", "use `forktui fan-out --force`"),
    Remedy("give from_running=true", "give --from-running", "press f"),
    Remedy(
        "from_running needs a Running source", "--from-running needs a Running source", "a copy needs a Running source"
    ),
    Remedy("leave from_running out", "leave --from-running out", "press f again"),
    Remedy("from_running is for a single fork", "--from-running is for a single fork", "a copy is for a single fork"),
    Remedy("give hypervisor=", "give --hypervisor=", "create it with --hypervisor="),
    Remedy("share_memory=true and memory_backend=uffd", "--share-memory and --memory-backend uffd", "f"),
)


def in_commands(message: str) -> str:
    """Return a supervisor's message with what can be given on the command line."""
    for remedy in REMEDIES:
        message = message.replace(remedy.api, remedy.command)
    return message


def in_dashboard(message: object) -> str:
    """Return a supervisor's message, or an error with one, as safe text with the keys that can be pressed."""
    text = str(message)
    for remedy in REMEDIES:
        text = text.replace(remedy.api, remedy.dashboard)
    return safe_text(text)
