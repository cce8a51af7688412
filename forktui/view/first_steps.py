"""What stands in the tree's place while there is no instance: what one does next. Pure."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from forktui.view.rows import text_of, wrapped
from forktui.view.styled_lines import Ink, Line, left
from supervisor.models import SupervisorInfo

INDENT = "  "
_KEY_WIDTH = 6


@dataclass(frozen=True)
class Steps:
    """`makes` are the keys from an image to its forks and what each does, `looks` those that anybody has."""

    makes: Sequence[tuple[str, str]]
    looks: Sequence[tuple[str, str]]
    forbidden: str | None = None
    """Why nothing can be made."""
    private: bool = False
    """Whether the dashboard has started the supervisor."""
    waits_for: str = ""
    """Why nothing is known of a supervisor yet."""


def first_steps(supervisor: SupervisorInfo | None, steps: Steps, width: int) -> list[Line]:
    """The lines, in `width` cells; `supervisor` is None before it has told of itself."""
    lines: list[Line] = [[]]
    if supervisor is None:
        lines += _paragraph("Nothing is known of the host yet: forktui waits for its supervisor.", "strong", width)
        lines += _paragraph(steps.waits_for, "muted", width) if steps.waits_for else []
    else:
        lines += _paragraph("There is no instance yet.", "strong", width)
        if steps.forbidden is None:
            lines += [[], *_keys(steps.makes, width)]
        else:
            lines += _paragraph(f"None can be made from here: {steps.forbidden}.", "warning", width)
    lines += [[], *_keys(steps.looks, width)]
    for words in _about(supervisor, steps):
        lines += [[], *_paragraph(words, "muted", width)]
    return lines


def _about(supervisor: SupervisorInfo | None, steps: Steps) -> list[str]:
    """What there is to know of the supervisor before anything is made."""
    if supervisor is None:
        return []
    about = []
    if supervisor.firecracker_problem is not None:
        about.append(
            f"Firecracker cannot run here: {supervisor.firecracker_problem}. "
            "A supervisor looks for it when it starts; until then VMs run on the embedded VMM, which simulates the CPU."
        )
    if supervisor.jails is not None and supervisor.jails.problem is not None:
        about.append(f"Firecracker runs in no jail here: {supervisor.jails.problem}.")
    if steps.private:
        about.append(
            "This supervisor is private: forktui has started it, and it ends when you quit. VMs that run go on, and "
            "forktui finds them when it is started here again."
        )
    return [*about, f"Instances are kept in {supervisor.data_dir}."]


def _keys(keys: Sequence[tuple[str, str]], width: int) -> list[Line]:
    lines: list[Line] = []
    for key, does in keys:
        first, *rest = _rows(does, width - len(INDENT) - _KEY_WIDTH)
        lines.append([(INDENT, "plain"), (left(key, _KEY_WIDTH), "key"), (first, "plain")])
        lines += [[(INDENT + " " * _KEY_WIDTH + row, "plain")] for row in rest]
    return lines


def _paragraph(words: str, ink: Ink, width: int) -> list[Line]:
    return [[(INDENT + row, ink)] for row in _rows(words, width - len(INDENT))]


def _rows(words: str, width: int) -> list[str]:
    """The words in rows; what has wide characters is cut again by cells."""
    rows = textwrap.wrap(words, max(width, 1)) or [""]
    return [text_of(row) for one in rows for row in wrapped([(one, "plain")], max(width, 1))]
