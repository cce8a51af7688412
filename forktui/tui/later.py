"""What is done once, some time later."""

import asyncio
from collections.abc import Callable

from textual.message_pump import MessagePump


def later(pump: MessagePump, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
    """Call back in so many seconds, between two messages of a widget, a screen or the application.

    Textual's own timer leaves out what is due already, and what it leaves out once never comes: a program that is held
    up while it starts one would wait for ever (Timer._run in textual/timer.py).
    """
    return asyncio.get_running_loop().call_later(seconds, pump.call_next, callback)
