"""Who has an image, and what is being done to one."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from supervisor.errors import InvalidStateError, NameConflictError
from supervisor.rules.lifecycle import named
from supervisor.store.inventory import Inventory


class ImageUsers:
    """Those that were made of an image, and those that are being made of it: it is not removed meanwhile."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._using: dict[str, Counter[str]] = {}
        self._changing: dict[str, str] = {}

    @contextlib.contextmanager
    def using(self, image: str, name: str) -> Iterator[None]:
        """Have an instance be made of an image while the context lasts; InvalidStateError where that is removed."""
        if (verb := self._changing.get(image)) is not None:
            raise InvalidStateError(f"{name}: create refused: {verb} of image {image} is under way; wait for it")
        users = self._using.setdefault(image, Counter())
        users[name] += 1
        try:
            yield
        finally:
            users -= Counter([name])
            self._using[image] = users
            if not users:
                del self._using[image]

    @contextlib.contextmanager
    def changing(self, image: str, verb: str) -> Iterator[None]:
        """Have an image be made, or removed, by nobody else while the context lasts; NameConflictError where it is."""
        if (other := self._changing.get(image)) is not None:
            raise NameConflictError(f"image {image}: {verb} refused: {other} of it is under way; wait for it")
        self._changing[image] = verb
        try:
            yield
        finally:
            del self._changing[image]

    def check_unused(self, image: str, verb: str) -> None:
        """Raise InvalidStateError, with their names, where there are instances of an image."""
        records = [one.name for one in self._inventory.instances.values() if one.image == image]
        users = [*records, *(name for name in self._using.get(image, ()) if name not in records)]
        if users:
            what = "an instance is" if len(users) == 1 else f"{len(users)} instances are"
            them = "it" if len(users) == 1 else "them"
            raise InvalidStateError(
                f"image {image}: {verb} refused: {what} made of it ({named(users)}); delete {them} first"
            )
