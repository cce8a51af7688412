"""A kernel that has no room for one more watched descriptor."""

import errno
import os
from typing import Any

from supervisor.system.loop import Loop


class ScarceEpoll:
    """An epoll that takes so many descriptors and then no more: fs.epoll.max_user_watches of epoll(7)."""

    def __init__(self, epoll: Any, room: int) -> None:
        self._epoll = epoll
        self.room = room
        self.registered: set[int] = set()

    def register(self, fd: int, events: int) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        self._epoll.register(fd, events)
        self.registered.add(fd)

    def unregister(self, fd: int) -> None:
        self.registered.remove(fd)
        self._epoll.unregister(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


def scarce(loop: Loop, room: int) -> ScarceEpoll:
    """Give a loop an epoll that takes `room` descriptors more."""
    epoll = ScarceEpoll(loop._epoll, room)
    loop._epoll = epoll  # type: ignore[assignment]
    return epoll
