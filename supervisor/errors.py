"""What can be refused or can fail, each with the API's code and status; standard library only."""

import errno
from collections.abc import Sequence
from typing import Final

from supervisor.remedies import API_WORDS, Remedy

STORAGE_ERRNOS: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
"""What a system call says where the file system takes nothing more: full, over quota, read-only, broken."""


class SupervisorError(Exception):
    """The root of every error that the supervisor reports to a client.

    A message names the instance, what was refused, why, and what would allow it. Where that is something to ask of the
    API it is the `remedy`, with its `parameter`; the message is then the cause and the remedy in the API's words.
    """

    code = "internal_error"
    status = 500

    def __init__(
        self, cause: str, details: Sequence[dict[str, str]] = (), *, remedy: Remedy | None = None, parameter: str = ""
    ) -> None:
        self.cause = cause
        self.remedy = remedy
        self.parameter = parameter
        self.message = cause if remedy is None else cause + API_WORDS[remedy].format(parameter=parameter)
        self.details = tuple(details)
        super().__init__(self.message)


class BadRequestError(SupervisorError):
    """The request is malformed, or asks for a combination that is not supported."""

    code = "bad_request"
    status = 400


class InvalidImageError(BadRequestError):
    """The image is unknown, or its vm.json cannot be used."""

    code = "invalid_image"


class InvalidSizeError(BadRequestError):
    """The memory size does not parse or is out of bounds."""

    code = "invalid_size"


class ConsoleBusyError(SupervisorError):
    """Somebody else types into the console."""

    code = "console_busy"
    status = 409


class ForbiddenError(SupervisorError):
    """The peer's uid may not do this."""

    code = "forbidden"
    status = 403


class NotFoundError(SupervisorError):
    """No instance has this id, name or unique prefix."""

    code = "not_found"
    status = 404


class NameConflictError(SupervisorError):
    """Another instance has the name already."""

    code = "name_conflict"
    status = 409


class InvalidStateError(SupervisorError):
    """The instance's state or its forks do not allow the verb."""

    code = "invalid_state"
    status = 409


class OperationCancelledError(SupervisorError):
    """Somebody asked for the operation to end, or the supervisor ends: what it had begun is undone."""

    code = "cancelled"
    status = 409


class StoppingError(SupervisorError):
    """The supervisor was asked to stop and begins nothing more."""

    code = "stopping"
    status = 503


class InsufficientResourcesError(SupervisorError):
    """The host lacks what the verb needs: memory, disk, descriptors, huge pages."""

    code = "insufficient_resources"
    status = 409


class DependencyMissingError(SupervisorError):
    """A program, device or permission that the verb needs is not there."""

    code = "dependency_missing"
    status = 501


class StorageError(SupervisorError):
    """The data directory cannot be written: full, read-only, or gone."""

    code = "storage_failed"


class VmmError(SupervisorError):
    """A VMM refused a request, exited early, or did not answer in time."""

    code = "vmm_failed"
    status = 500


class VmmRefusedError(VmmError):
    """A VMM refused a request for what was asked for; it is as it was."""


class VmmSilentError(VmmError):
    """A VMM did not answer in time, and may do so yet."""


class MachineFileError(SupervisorError):
    """A file that an instance's vm.json names is gone, or not what its snapshot was taken with: nothing is started."""

    code = "machine_file_changed"
    status = 409


class PageServerError(SupervisorError):
    """A page server refused a request, exited, or was offered a peer it does not trust."""

    code = "page_server_failed"
    status = 500


class LayerError(PageServerError):
    """A layer of a memory image is missing, or not what was noted of it: no page server is started on it, and no VM."""

    code = "layer_changed"
    status = 409


class ConsoleHolderError(SupervisorError):
    """A console holder cannot be started, has exited, or did not answer: guests run on, and another one is started."""


def check_descriptors(error: OSError, what: str) -> None:
    """Raise InsufficientResourcesError where nothing is wrong with `what`, and no descriptor was left to open it."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise InsufficientResourcesError(f"{what}: {error.strerror}; raise the limit of open files") from error
