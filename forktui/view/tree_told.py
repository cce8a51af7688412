"""What is said of a fork tree that does not show everything: what is looked for, and how much of it there is. Pure."""

from forktui.model.filter import FIELDS
from forktui.model.tree import Tree
from forktui.text.quantities import count
from forktui.view.styled_lines import Line, Piece, joined

FIELD_WORDS = " ".join(f"{name}:" for name in FIELDS)


def told(tree: Tree, typing: bool) -> Line:
    """What is filtered, the most important first; nothing where everything is shown."""
    parts: list[Line] = []
    looked_for, found, everything = tree.view.filter, tree.forest.found, len(tree.world.instances)
    if looked_for.problem:
        # The tree has nothing else to show, and room for all of it.
        parts.append([("not understood", "broken")])
    elif looked_for:
        counted: Piece = (f"{count(found)} of {count(everything)} match", "plain" if found else "warning")
        parts.append([counted] if typing else [("/", "key"), (f"{tree.query}  ", "strong"), counted])
    if tree.view.hides_ended:
        hidden = "ended hidden" if looked_for else f"{count(everything - found)} ended hidden"
        parts.append([(hidden, "warning"), (" . shows them", "muted")])
    if typing and not looked_for.problem:
        parts.append([(f"words, or {FIELD_WORDS}", "muted")])
    elif looked_for:
        parts.append([("Esc ends the filter", "muted")])
    return joined(parts, ("  ", "plain"))


def nothing_shown(tree: Tree) -> str:
    """Why no instance is shown; nothing where there is none at all."""
    if not tree.world.instances:
        return ""
    if tree.view.filter.problem:
        return tree.view.filter.problem
    if not tree.view.filter:
        return "All that there is has ended: . shows it"
    ended = ", and those that have ended are hidden: . shows them" if tree.view.hides_ended else ""
    return f"Nothing matches {tree.query.strip()}{ended}"
