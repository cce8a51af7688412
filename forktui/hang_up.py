"""Notices that a terminal is gone, also where it is no controlling terminal and no SIGHUP tells it."""

import asyncio
import select
from collections.abc import Callable


def on_hang_up(terminal: int, call: Callable[[], object]) -> None:
    """Have the running event loop call once a terminal, by its descriptor, is hung up; what is typed is left to others."""
    loop = asyncio.get_running_loop()
    # EPOLLHUP is reported whether asked for or not: epoll_ctl(2).
    epoll = select.epoll()
    epoll.register(terminal, 0)

    def hung_up() -> None:
        loop.remove_reader(epoll.fileno())
        epoll.close()
        call()

    loop.add_reader(epoll.fileno(), hung_up)
