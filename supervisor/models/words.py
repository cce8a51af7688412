"""Words of lines that both ends make."""


def how_many(number: int, thing: str) -> str:
    """Return a number and the name of this many things: `0 forks`, `1 fork`, `2 forks`."""
    return f"{number} {thing if number == 1 else f'{thing}s'}"
