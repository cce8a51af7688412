"""Every name on disk and in the run directory, in one page. Pure: it makes paths and touches none.

    <data>/
      lock                      who has the data directory: flock, and a pid
      schema                    which schema it has
      run_dir                   where the VMs of it have their sockets
      instances/<id>/           a VMM's working directory
        instance.json           the record
        state.<n>, mem.<n>      a snapshot's state-file, and the layers of its memory image
        hot_pages               where its image brought one
        vm.json, kernel, initrd, disk.<drive>, pmem.<device>
        console.log, vmm.log      what its guest and its VMM write, bounded
        console.log.1, vmm.log.1  what was before that, and *.rotation: at which position that ends
      templates/<id>/
        template.json           the record
        mem.<n>                 hard links to the layers
        recorded/               its page server's own
          hot_pages             the list of the pages that its forks touch first
        page_server.log         and page_server.log.1, page_server.log.rotation
      images/<name>/            vm.json and what it names; or state and mem, and perhaps vm.json and hot_pages
      jail/
        firecracker/<id>/       has what a jailed VMM has as its root, and works in; nothing of it is kept
        .deleted-<id>-<n>       one whose VMM has ended
        program, into_cgroup    what VMMs in jails are started by
    <run>/
      lock, supervisor.sock
      <instance>.sock           the API of its VMM
      <instance>.uffd           where its VMM sends the userfaultfd
      consoles.control          the control socket of the console holder
      <template>.pages          the control socket of its page server
      pages/<instance>.map      its page map
      pages/<instance>.map.unfinished   one that is not whole yet
      pages/<instance>.map.aside.<n>    what was in its place and is none; a directory is somebody's, and stays

What is not whole has `.new` behind its name if it is a file, and `.new-` before it if it is a directory. What is about
to be removed has `.deleted-` before it. A supervisor that starts sweeps all of these.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.models.base import ID_LENGTH
from supervisor.uffd.map_files import ASIDE, UNFINISHED
from supervisor.vmm.logs import CONSOLE_LOG, LOG_NAMES, VMM_LOG

LOCK: Final = "lock"
SCHEMA: Final = "schema"
RUN_DIR: Final = "run_dir"

INSTANCE_RECORD: Final = "instance.json"
TEMPLATE_RECORD: Final = "template.json"
STATE: Final = "state"
MEM: Final = "mem"
HOT_PAGES: Final = "hot_pages"
RECORDED: Final = "recorded"
VM_JSON: Final = "vm.json"
KERNEL: Final = "kernel"
INITRD: Final = "initrd"
METADATA: Final = "metadata.json"
"""What the disk is written as that has an instance's metadata, before it is in its place."""

JAILED_PROGRAM: Final = "firecracker"
"""What the jailer is told to start; its name has to have this in it."""

PARTIAL: Final = ".new"
STAGED: Final = ".new-"
DELETED: Final = ".deleted-"

PAGES_MODE: Final = 0o750
"""That of the directory of the page maps."""

SNAPSHOT_FILE: Final = re.compile(rf"({STATE}|{MEM})\.\d+({re.escape(PARTIAL)})?")
"""The names of a snapshot's files in an instance's directory, whole or not."""

_OWN_FILES: Final = (INSTANCE_RECORD, VM_JSON, HOT_PAGES, *LOG_NAMES)
_OWN: Final = re.compile(
    rf"{SNAPSHOT_FILE.pattern}|({'|'.join(map(re.escape, _OWN_FILES))})({re.escape(PARTIAL)})?"
    rf"|\..*\.json{re.escape(PARTIAL)}",
    re.DOTALL,
)
_ID: Final = "?" * ID_LENGTH
"""What an id looks like to glob."""


@dataclass(frozen=True)
class Layout:
    """The paths below one data directory and one run directory."""

    data_dir: Path
    run_dir: Path

    @property
    def instances(self) -> Path:
        """Where the instances' directories are."""
        return self.data_dir / "instances"

    @property
    def templates(self) -> Path:
        """Where the templates' directories are."""
        return self.data_dir / "templates"

    @property
    def images(self) -> Path:
        """Where the images' directories are."""
        return self.data_dir / "images"

    @property
    def jails(self) -> Path:
        """Where the jailer makes jails: below it is a directory called as the program that it starts."""
        return self.data_dir / "jail"

    def jail(self, instance_id: str) -> Path:
        """Return what the supervisor alone has of an instance's jail."""
        return self.jails / JAILED_PROGRAM / instance_id

    def jail_root(self, instance_id: str) -> Path:
        """Return what an instance's VMM has as its root."""
        return self.jail(instance_id) / "root"

    @property
    def page_maps(self) -> Path:
        """Where the page maps are."""
        return self.run_dir / "pages"

    def instance(self, instance_id: str) -> Path:
        """Return the directory of an instance."""
        return self.instances / instance_id

    def template(self, template_id: str) -> Path:
        """Return the directory of a template."""
        return self.templates / template_id

    def image(self, name: str) -> Path:
        """Return the directory of an image."""
        return self.images / name

    def console_log(self, instance_id: str) -> Path:
        """Return what an instance's guest has printed."""
        return self.instance(instance_id) / CONSOLE_LOG

    def vmm_log(self, instance_id: str) -> Path:
        """Return what an instance's VMM has logged."""
        return self.instance(instance_id) / VMM_LOG

    def page_server_log(self, template_id: str) -> Path:
        """Return what a template's page server has logged."""
        return self.template(template_id) / "page_server.log"

    def recorded(self, template_id: str) -> Path:
        """Return what a template's page server works in."""
        return self.template(template_id) / RECORDED

    def hot_pages(self, template_id: str) -> Path:
        """Return a template's hot-page list."""
        return self.recorded(template_id) / HOT_PAGES

    def earlier_hot_pages(self, template_id: str) -> Path:
        """Return where page servers of earlier versions have it."""
        return self.template(template_id) / HOT_PAGES

    def api_socket(self, instance_id: str) -> Path:
        """Return where an instance's VMM answers."""
        return self.run_dir / f"{instance_id}.sock"

    def uffd_socket(self, instance_id: str) -> Path:
        """Return where an instance's VMM sends its userfaultfd."""
        return self.run_dir / f"{instance_id}.uffd"

    def control_socket(self, template_id: str) -> Path:
        """Return where a template's page server answers the supervisor."""
        return self.run_dir / f"{template_id}.pages"

    @property
    def console_socket(self) -> Path:
        """Return where the console holder answers the supervisor."""
        return self.run_dir / "consoles.control"

    def page_map(self, instance_id: str) -> Path:
        """Return a fork's page map."""
        return self.page_maps / f"{instance_id}.map"

    def run_files(self, instance_id: str) -> tuple[Path, ...]:
        """Return the sockets and the page map of an instance that runs."""
        return self.api_socket(instance_id), self.uffd_socket(instance_id), self.page_map(instance_id)

    @property
    def run_file_patterns(self) -> tuple[str, ...]:
        """Globs, relative to the run directory, for what is there by the name of an instance or a template."""
        paths = (*self.run_files(_ID), self.control_socket(_ID))
        return tuple(str(path.relative_to(self.run_dir)) for path in paths)

    @property
    def beside_page_map_patterns(self) -> tuple[str, ...]:
        """Globs, relative to the run directory, for what page servers make and set aside beside their page maps."""
        page_map = str(self.page_map(_ID).relative_to(self.run_dir))
        return f"{page_map}{UNFINISHED}", f"{page_map}{ASIDE}*"

    def page_map_beside(self, path: Path) -> Path:
        """Return the page map of the instance that something stands beside the page map of."""
        return self.page_map(path.name[:ID_LENGTH])

    @property
    def listening_patterns(self) -> tuple[str, ...]:
        """Globs, relative to the run directory, for the sockets that VMMs and page servers listen at."""
        return tuple(path.name for path in (self.api_socket(_ID), self.control_socket(_ID)))


def state_file(number: int) -> str:
    """Return the name of the state-file of an instance's snapshot."""
    return f"{STATE}.{number}"


def layer(number: int) -> str:
    """Return the name of a layer of an instance's memory image."""
    return f"{MEM}.{number}"


def disk_file(drive_id: str) -> str:
    """Return the name of a drive's file in the directory of an instance that boots."""
    return f"disk.{drive_id}"


def pmem_file(device_id: str) -> str:
    """Return the name of a pmem device's file in the directory of an instance that boots."""
    return f"pmem.{device_id}"


def partial(path: Path) -> Path:
    """Return what a file is called until all of it is on the disk."""
    return path.with_name(f"{path.name}{PARTIAL}")


def partial_record(path: Path) -> Path:
    """Return what a record is called until all of it is on the disk."""
    return path.with_name(f".{path.name}{PARTIAL}")


def staged(directory: Path) -> Path:
    """Return what a directory is called until all of it is there."""
    return directory.with_name(f"{STAGED}{directory.name}")


def deleted(directory: Path) -> Path:
    """Return what a directory is called from when it is as good as removed."""
    return directory.with_name(f"{DELETED}{directory.name}")


def is_own(name: str) -> bool:
    """Return whether a name in an instance's directory is the supervisor's, or one that it sweeps."""
    return _OWN.fullmatch(name) is not None
