"""Page maps that a test writes itself, in files as the supervisor makes them."""

from pathlib import Path

from supervisor.uffd.map_files import new_map_file
from supervisor.uffd.page_map import PageMap


def page_map_at(path: Path, page_size: int, page_count: int) -> PageMap:
    """Return a page map in a file at its path."""
    with new_map_file(path) as file:
        pages = PageMap.create(file.descriptor, path, page_size, page_count)
        file.place()
    return pages


def put_back(pages: PageMap, path: Path) -> None:
    """Have a page map in another file at its path."""
    with new_map_file(path) as file:
        pages.move_to(file.descriptor)
        file.place()
