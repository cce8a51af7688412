"""Lines that are waited for on consoles: whoever waits for what takes long keeps nobody else from theirs."""

import asyncio
from pathlib import Path

from supervisor.models.line_patterns import LinePattern
from supervisor.runtime.console_searches import ConsoleSearches

PATIENCE = 20.0
HOSTILE = "[^e]" + "." * 190 + "#"
"""Each byte of it takes as long as hundreds of others."""


def console(directory: Path, name: str, data: bytes) -> Path:
    path = directory / name / "console.log"
    path.parent.mkdir()
    path.write_bytes(data)
    return path


async def test_patterns_that_take_long_keep_nobody_from_a_line_and_end_with_their_waits(tmp_path: Path) -> None:
    searches = ConsoleSearches()
    letters = bytes(ord("a") + (at * at + at // 7) % 23 for at in range(1 << 18))
    long = console(tmp_path, "long", letters * 4)
    hostile = [asyncio.create_task(searches.until(long, 0, LinePattern(HOSTILE))) for _ in range(8)]
    short = console(tmp_path, "short", b"booting\n")
    waiting = asyncio.create_task(searches.until(short, 0, LinePattern("login:")))
    done, _ = await asyncio.wait((*hostile, waiting), timeout=0.0)
    assert not done
    with short.open("ab") as file:
        file.write(b"web login: ")
    await asyncio.wait_for(waiting, PATIENCE)
    assert not any(one.done() for one in hostile)
    for one in hostile:
        one.cancel()
    await asyncio.gather(*hostile, return_exceptions=True)
    again = asyncio.create_task(searches.until(short, 0, LinePattern("booting")))
    await asyncio.wait_for(again, PATIENCE)
    await asyncio.wait_for(searches.close(), PATIENCE)


async def test_each_of_many_consoles_is_looked_at_when_it_has_more(tmp_path: Path) -> None:
    searches = ConsoleSearches()
    consoles = [console(tmp_path, str(number), b"") for number in range(300)]
    waits = [asyncio.create_task(searches.until(path, 0, LinePattern("^up$"))) for path in consoles]
    for path in consoles:
        with path.open("ab") as file:
            file.write(b"up\n")
    await asyncio.wait_for(asyncio.gather(*waits), PATIENCE)
    assert not searches._directories and not searches._watch._of
    await searches.close()
