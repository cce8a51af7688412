"""What would allow a request that was refused: a value that crosses the wire, and the API's own wording of it.

Standard library only.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Remedy(StrEnum):
    """What would allow a request, where that is something to ask of this API: each client has its own words for it."""

    LIST_INSTANCES = "list_instances"
    LIST_OPERATIONS = "list_operations"
    LIST_IMAGES = "list_images"
    READ_EVENTS = "read_events"
    CASCADE = "cascade"
    FORCE = "force"
    FROM_RUNNING = "from_running"
    WITHOUT_FROM_RUNNING = "without_from_running"
    SHARE_MEMORY = "share_memory"
    PAGE_SERVER = "page_server"
    """A share_memory fork on the uffd backend."""
    FILE_BACKEND = "file_backend"
    ACCEPT = "accept"
    """Of the instance whose name is the parameter."""
    ACCEPT_CHANGED = "accept_changed"
    BOOT_ANEW = "boot_anew"
    """A fork without its source's snapshot, which is started."""
    HYPERVISOR = "hypervisor"
    """With the name of the one that it has to be as parameter."""


API_WORDS: Final[Mapping[Remedy, str]] = {
    Remedy.LIST_INSTANCES: "; GET /instances lists them",
    Remedy.LIST_OPERATIONS: "; GET /operations lists them",
    Remedy.LIST_IMAGES: "; GET /images lists them",
    Remedy.READ_EVENTS: ", or read GET /events",
    Remedy.CASCADE: ", or give cascade=true to delete the whole tree",
    Remedy.FORCE: ", or give force=true",
    Remedy.FROM_RUNNING: ", or give from_running=true for a copy",
    Remedy.WITHOUT_FROM_RUNNING: "; leave from_running out",
    Remedy.SHARE_MEMORY: "; give share_memory=true and leave template_id out",
    Remedy.PAGE_SERVER: "; fork it with share_memory=true and memory_backend=uffd",
    Remedy.FILE_BACKEND: ", or use memory_backend=file",
    Remedy.ACCEPT: ", or POST /instances/{parameter}/accept to have what is there read whole and taken",
    Remedy.ACCEPT_CHANGED: ", or give changed=true to take it as another memory",
    Remedy.BOOT_ANEW: ", or fork it with target_state=Stopped, and start that",
    Remedy.HYPERVISOR: "; give hypervisor={parameter}",
}
"""What follows the cause in a message of the API. No other place says what its requests can be given."""
