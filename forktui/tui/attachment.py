"""How a dashboard is attached to its supervisor."""

from dataclasses import dataclass
from typing import Final

PRIVATE: Final = "private supervisor"


@dataclass(frozen=True)
class Attachment:
    """`title` says what the supervisor is to the dashboard, as far as it is not just any. Text is safe."""

    socket: str = ""
    title: str = ""
    private: bool = False
    """Whether the dashboard has started the supervisor, which ends with it."""
    read_only: bool = False
    """Whether the dashboard was told to change nothing, whatever the supervisor lets it."""
