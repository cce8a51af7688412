"""pagewalker's kernel command line, as the guest itself reads it; standard library only.

`ip=` is not among the options: only a guest with a network interface reads it, and the simulated CPU has none.
"""

from typing import NamedTuple

from supervisor.guests.pagewalker import (
    DEFAULT_BALLAST_MIB,
    DEFAULT_END,
    DEFAULT_HOT_MIB,
    DEFAULT_PASSES,
    DEFAULT_SEED,
    DEFAULT_UPPER_MIB,
    MAX_HOT_MIB,
    MAX_UPPER_MIB,
    MIB,
    OLD_GAP_BASE,
    RESET,
    WORD_MASK,
    ballast_end,
    minimum_memory,
)


class CommandLineError(Exception):
    """The guest's command line cannot be followed; the message is the console's `error:` line."""


class Options(NamedTuple):
    """The command line; `passes` 0 walks for ever."""

    hot_mib: int = DEFAULT_HOT_MIB
    passes: int = DEFAULT_PASSES
    seed: int = DEFAULT_SEED
    ballast_mib: int = DEFAULT_BALLAST_MIB
    upper_mib: int = DEFAULT_UPPER_MIB
    end: int = DEFAULT_END


def parse_command_line(text: str, memory_size: int) -> Options:
    """Return what the words `name=decimal` say; other words are somebody else's. Raises CommandLineError."""
    values: dict[str, int] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in Options._fields:
            continue
        # A longer number is too large anyway, and int() refuses one of thousands of digits.
        if not (value.isascii() and value.isdigit() and len(value) <= 20 and int(value) <= WORD_MASK):
            raise CommandLineError(f"{name}= is not a decimal number below 2^64")
        values[name] = int(value)
    options = Options(**values)
    if options.end > RESET:
        raise CommandLineError(f"end={options.end} is not 0 to {RESET}")
    if not 1 <= options.hot_mib <= MAX_HOT_MIB:
        raise CommandLineError(f"hot_mib={options.hot_mib} is not 1 to {MAX_HOT_MIB}")
    if minimum_memory(options.hot_mib) > memory_size:
        raise CommandLineError(f"hot_mib={options.hot_mib} and the 32 MiB below it do not fit in memory")
    if minimum_memory(options.hot_mib, options.ballast_mib) > ballast_end(memory_size):
        raise CommandLineError(f"ballast_mib={options.ballast_mib} does not fit in memory above the hot set")
    if options.upper_mib > min(max(memory_size - OLD_GAP_BASE, 0) // MIB, MAX_UPPER_MIB):
        raise CommandLineError(f"upper_mib={options.upper_mib} does not fit in memory above 4 GiB")
    return options
