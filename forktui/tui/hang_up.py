"""Notices that a terminal is gone, also where it is no controlling terminal and no SIGHUP tells it."""

import asyncio
import select
from collections.abc import Callable


def on_hang_up(terminal: int, call: Callable[[], object]) -> None:
    """Have the event loop that runs call once a terminal, a descriptor, is hung up; who reads it is not disturbed."""
    loop = asyncio.get_running_loop()
    # EPOLLHUP is reported whether asked for or not: epoll_ctl(2).
    epoll = select.epoll()
    epoll.register(terminal, 0)

    def hung_up() -> None:
        loop.remove_reader(epoll.fileno())
        epoll.close()
        call()

    loop.add_reader(epoll.fileno(), hung_up)
