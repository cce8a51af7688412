"""The names on disk and in the run directory: one owner, none taken twice, none outside of the two directories."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import supervisor
from supervisor.settings import SOCKET_NAME
from supervisor.store import layout
from supervisor.store.layout import Layout, is_own
from supervisor.store.registry import new_id
from supervisor.system.unix_sockets import SUN_PATH_BYTES

HERE = Layout(Path("/data"), Path("/run/forktui"))
NAMES = {
    "instance.json",
    "template.json",
    "vm.json",
    "hot_pages",
    "console.log",
    "vmm.log",
    "page_server.log",
    "run_dir",
}
ENDINGS = (".sock", ".uffd", ".pages", ".map", ".new", ".new-", ".deleted-")


def constants(path: Path) -> Iterator[str]:
    """Yield the texts in a module that are values, and not documentation."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_other_module_knows_how_anything_is_called() -> None:
    rooms = Path(supervisor.__file__).parent
    # A VMM's logs are the driver's, an option's name is the settings', and the embedded VMM is a program of its own.
    others = {
        Path(layout.__file__),
        rooms / "vmm" / "logs.py",
        rooms / "settings.py",
        *(rooms / "embedded").rglob("*.py"),
    }
    found = [
        f"{path.relative_to(rooms)}: {text!r}"
        for path in sorted(set(rooms.rglob("*.py")) - others)
        for text in constants(path)
        if text in NAMES or text in ENDINGS
    ]
    assert found == []


def test_everything_lies_in_one_of_the_two_directories_under_a_name_of_its_own() -> None:
    one, other = new_id(), new_id()
    paths = [path for each in (one, other) for path in (*HERE.run_files(each), HERE.control_socket(each))]
    paths += [path for each in (one, other) for path in (HERE.instance(each), HERE.template(each), HERE.image(each))]
    paths += [HERE.run_dir / SOCKET_NAME, HERE.run_dir / layout.LOCK, HERE.data_dir / layout.LOCK]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.is_relative_to(HERE.data_dir) != path.is_relative_to(HERE.run_dir)


def test_what_is_swept_from_the_run_directory_is_what_instances_and_templates_have_there() -> None:
    one = new_id()
    names = [str(path.relative_to(HERE.run_dir)) for path in (*HERE.run_files(one), HERE.control_socket(one))]
    for name in names:
        assert any(fnmatch(name, pattern) for pattern in HERE.run_file_patterns)
    for foreign in (SOCKET_NAME, layout.LOCK, "pages", "mine.sock", f"{one}.sock.bak"):
        assert not any(fnmatch(foreign, pattern) for pattern in HERE.run_file_patterns)


def test_sockets_have_room_in_the_longest_run_directory_that_settings_allow() -> None:
    longest = max(len(str(path.name)) for path in (HERE.api_socket(new_id()), HERE.control_socket(new_id())))
    assert longest <= 30 < SUN_PATH_BYTES


@pytest.mark.parametrize(
    "name",
    [
        "instance.json",
        "vm.json",
        "vm.json.new",
        "state.0",
        "mem.12",
        "mem.3.new",
        "hot_pages",
        "console.log",
        "vmm.log.1",
    ],
)
def test_names_of_its_own_files_are_known(name: str) -> None:
    assert is_own(name)


@pytest.mark.parametrize("name", ["state.img", "mem", "mem.x", "disk.root", "kernel", "vm.json.old", "root.img", "\n"])
def test_names_that_a_guests_files_may_have_are_not(name: str) -> None:
    assert not is_own(name)


def test_half_made_and_half_removed_directories_are_beside_what_they_become_or_were() -> None:
    directory = HERE.instance(new_id())
    for other in (layout.staged(directory), layout.deleted(directory)):
        assert other.parent == directory.parent
        assert other.name.startswith(".")
        assert other.name.endswith(directory.name)
