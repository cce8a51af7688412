"""Keys in the order in which they were typed, whatever they do."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from textual import events
from textual.app import App
from textual.message_pump import MessagePump

PATIENCE: Final = 2.0
"""Seconds that a key is waited for before the next is passed on: a handler may wait for something else meanwhile."""
ROUNDS: Final = 5
"""How often it is looked whether a key has moved the focus: a screen that opens, that closes, and what those cause."""


class HoldsKeys:
    """A screen that closes by an answer from elsewhere: what is typed meanwhile is not for it."""

    answered: asyncio.Event


class KeysInOrder(App[None]):
    """Passes a key on once all is done that the key before it does.

    Textual passes each to the focused widget at once. A letter is typed there and then, but a key with a binding goes
    up from widget to widget, each with a queue of its own, and back from the application: of a burst, letters overtake
    Backspace and Enter, and what was typed for a dialog goes to what is below it. So a callback follows each key the
    same way up, and the next key waits for it.
    """

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._typed: deque[events.Key | events.Paste] = deque()
        self._passing = False

    async def on_event(self, event: events.Event) -> None:
        """Hold back what is typed while a key is on its way."""
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        elif self._passing:
            self._typed.append(event)
        else:
            self._passing = True
            await super().on_event(event)
            # Not what it returns: of an application that ends, no worker is started, and nobody would await that.
            follow: Callable[[], Awaitable[None]] = self._follow
            self.run_worker(follow, name="keys", group="keys")

    async def _follow(self) -> None:
        """Pass on what was held back, a key at a time."""
        await self._settled()
        while self._typed:
            await _done(self, partial(super().on_event, self._typed.popleft()))
            await self._settled()
        self._passing = False

    async def _settled(self) -> None:
        """Return once the last key has been everywhere, and so has what it caused on the screen that it led to."""
        was: MessagePump | None = None
        for _ in range(ROUNDS):
            way = self._way()
            if not way or was is way[0]:
                return
            was = way[0]
            for pump in way:
                await _done(pump)
            screen = self.screen
            if isinstance(screen, HoldsKeys) and not screen.answered.is_set():
                await _bounded(screen.answered)
                was = None

    def _way(self) -> list[MessagePump]:
        """Those that a key is passed through, the focused one first; none once the application ends."""
        pump: MessagePump | None = (self.focused or self.screen) if self.screen_stack else None
        way = []
        while pump is not None:
            way.append(pump)
            pump = pump._parent
        return way


async def _nothing() -> None:
    """Wait for nothing."""


async def _done(pump: MessagePump, action: Callable[[], Awaitable[None]] = _nothing) -> None:
    """Return once `pump` has done the action, after all that it was told before; at once where it has ended."""
    done = asyncio.Event()

    async def act() -> None:
        try:
            await action()
        finally:
            done.set()

    if pump.post_message(events.Callback(callback=act)):
        await _bounded(done)


async def _bounded(event: asyncio.Event) -> None:
    """Return once the event is set, or patience is at its end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await event.wait()
