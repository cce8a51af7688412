"""Numbers as an operator reads them: short, aligned, with their unit."""

import re
from collections.abc import Sequence

from supervisor.models import FanOutEstimate, Operation

MEBIBYTE = 1 << 20
SHORT_ID = 8
"""Characters of an id that tell instances apart as a rule."""


def mebibytes(size_bytes: int) -> str:
    """A size in MiB without its unit, at most six characters below a TiB: `0`, `4.3`, `128`, `16384`."""
    size = size_bytes / MEBIBYTE
    if size_bytes == 0:
        return "0"
    return f"{size:.1f}" if size < 99.95 else f"{size:.0f}"


def size(size_bytes: int) -> str:
    """A size with its unit: `512 B`, `4 KiB`, `18.2 MiB`, `23.4 GiB`."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if amount >= 99.95 else f"{amount:.1f}".removesuffix(".0") + f" {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def count(number: int) -> str:
    """A count in at most five characters: `4101`, `12.3k`, `123k`, `1.2M`."""
    amount = float(number)
    if number < 10_000:
        return str(number)
    for unit in ("k", "M", "G"):
        amount /= 1000
        if amount < 99.95:
            return f"{amount:.1f}{unit}"
        if amount < 999.5:
            return f"{amount:.0f}{unit}"
    return f"{amount:.0f}G"


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the values, in their order, is below; there has to be one."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def plural(number: int, thing: str) -> str:
    """How many things: `1 fork`, `8 forks`, `12.3k forks`."""
    return f"{count(number)} {named(number, thing)}"


def named(number: int, thing: str) -> str:
    """The name of this many things."""
    return thing if number == 1 else f"{thing}s"


def rate(per_second: float) -> str:
    """A rate per second: `0`, `0.5`, `67`, `12.3k`."""
    return f"{per_second:.1f}" if 0 < per_second < 9.95 else count(round(per_second))


def milliseconds(duration: float) -> str:
    """A duration given in milliseconds: `0.8 ms`, `519 ms`, `1.2 s`."""
    if duration < 99.95:
        return f"{duration:.1f} ms"
    return f"{duration:.0f} ms" if duration < 999.5 else f"{duration / 1000:.1f} s"


def age(seconds: float) -> str:
    """How long ago, in whole seconds: `3s`, `2m05s`, `1h03m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def rough_age(seconds: float) -> str:
    """How long ago in its largest unit, in at most four characters: `3s`, `59m`, `23h`, `999d`, `12y`."""
    whole = max(int(seconds), 0)
    for unit, length, following in (("s", 1, 60), ("m", 60, 3600), ("h", 3600, 86_400), ("d", 86_400, 1000 * 86_400)):
        if whole < following:
            return f"{whole // length}{unit}"
    return f"{min(whole // (365 * 86_400), 999)}y"


def percentage(part: float, whole: float) -> str:
    """`part` of `whole`: `12.5%`; `-` where there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def names(items: tuple[str, ...] | list[str], shown: int = 2, total: int | None = None) -> str:
    """The first names and how many more there are: `fork-1, fork-2, +6`."""
    rest = (len(items) if total is None else total) - min(len(items), shown)
    return ", ".join([*items[:shown], *([f"+{rest}"] if rest > 0 else [])])


def numbers_apart(name: str) -> list[str | int]:
    """A name in parts by which `fork-10` comes after `fork-2`: text and numbers in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]


def deleted(instance_id: str) -> str:
    """An instance that is no more, by the beginning of its id: `(deleted) 0123abcd`."""
    return f"(deleted) {instance_id[:SHORT_ID]}"


def progress(operation: Operation) -> str:
    """How much of an operation is done, where that is counted: `12 of 100 forks`, `3.2 of 64 MiB`."""
    total = operation.total or 0
    if operation.unit == "bytes":
        return f"{mebibytes(operation.done)} of {mebibytes(total)} MiB"
    of = plural(total, operation.unit.removesuffix("s")) if operation.unit else count(total)
    return f"{count(operation.done)} of {of}"


def ended(operation: Operation) -> str:
    """How an operation that was to be cancelled has ended: `web: fan-out cancelled, 12 of 100 forks`."""
    how = {"done": "was done before it could be cancelled", None: "is being cancelled"}
    made = f", {progress(operation)}" if operation.total is not None else ""
    return f"{operation.name}: {operation.verb} {how.get(operation.outcome, operation.outcome)}{made}"


def fits(estimate: FanOutEstimate) -> str:
    """How many forks fit, and what limits them: `up to 431 (memory)`."""
    return f"up to {estimate.fits} ({(estimate.limiting or 'the most at once').replace('_', ' ')})"
