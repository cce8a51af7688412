"""Notices that a terminal or the reader of a pipe is gone, also where no signal or failed write tells it."""

import asyncio
import select
from collections.abc import Callable


def on_hang_up(descriptor: int, call: Callable[[], object]) -> Callable[[], None]:
    """Have the event loop that runs call once a terminal or a pipe, a descriptor, is hung up; it is not disturbed.

    Returns what ends that. Raises PermissionError for what cannot be: a regular file, or a device that is no terminal.
    """
    loop = asyncio.get_running_loop()
    # EPOLLHUP, and EPOLLERR of a pipe that nobody reads, are reported whether asked for or not: epoll_ctl(2).
    epoll = select.epoll()
    epoll.register(descriptor, 0)

    def end() -> None:
        if not epoll.closed:
            loop.remove_reader(epoll.fileno())
            epoll.close()

    def hung_up() -> None:
        end()
        call()

    loop.add_reader(epoll.fileno(), hung_up)
    return end
