"""Whether a fan-out fits: what is said of the number while it is typed, and asked where it is large."""

from collections.abc import Sequence
from typing import Final

from forktui.actions.form import Look, Question, Values, filled
from forktui.client.api import SupervisorClient
from forktui.text.quantities import fits, size
from forktui.text.safe import safe_text
from supervisor.models import FanOutEstimate, FanOutRequest

LARGE: Final = 100
"""Forks from which on a fan-out is asked about although it fits."""


async def look(client: SupervisorClient, instance_ids: Sequence[str], values: Values) -> Look:
    """Return how many forks fit, and what so many of them take."""
    return Look(estimate_lines(await _estimate(client, instance_ids, values)))


async def review(client: SupervisorClient, instance_ids: Sequence[str], values: Values) -> Question | None:
    """Return what is asked before so many forks are made; None where they fit and are few."""
    return question(await _estimate(client, instance_ids, values))


def estimate_lines(estimate: FanOutEstimate) -> tuple[str, ...]:
    """What an estimate says, in at most two lines."""
    line = f"fits: {fits(estimate)}"
    if estimate.count > estimate.fits:
        line = f"{estimate.count} do not fit: {fits(estimate).replace('up to', 'at most')}"
    taken = _taken(estimate)
    copies = f"; each copies {size(estimate.copied_bytes)} of disks first" if estimate.copied_bytes else ""
    return (line, f"{estimate.count} take {taken}{copies}") if taken else (line,)


def question(estimate: FanOutEstimate) -> Question | None:
    """What is asked of a large fan-out, or one that does not fit, which a Yes forces."""
    too_many = estimate.count > estimate.fits
    if not too_many and estimate.count < LARGE:
        return None
    says = list(estimate_lines(estimate))
    if too_many:
        says += [safe_text(row.basis) for row in estimate.resources if row.name == estimate.limiting]
        says.append("Forced all the same, they or others may be ended for want of it.")
    asked, adds = f"Make {estimate.count} forks?", {"force": "true"} if too_many else {}
    return Question(asked, tuple(says), "Force" if too_many else "Make them", adds=adds)


def _taken(estimate: FanOutEstimate) -> str:
    """What the forks take, and how much of that there is."""
    shown = []
    for row in estimate.resources:
        if row.name in ("memory", "disk") and row.needed:
            there = f" of {size(row.available)}" if row.available is not None else ""
            shown.append(f"{size(row.needed)}{there} {row.name}")
    return ", ".join(shown)


async def _estimate(client: SupervisorClient, instance_ids: Sequence[str], values: Values) -> FanOutEstimate:
    return await client.fan_out_estimate(instance_ids[0], FanOutRequest.model_validate(filled(values)))
