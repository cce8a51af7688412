"""How the VMM refuses: every message ends up as a `fault_message`, or on stderr where there is no request."""

import os

from supervisor.errors import BadRequestError


class FaultError(BadRequestError):
    """A request that is refused; the VM is as it was."""


class FatalFaultError(FaultError):
    """A request that left a VM half made: the VMM answers it and ends, as Firecracker does when a load fails."""


class MalformedError(ValueError):
    """A JSON text, or a value in it, that is not what its place asks for."""


def reason(error: OSError) -> str:
    """Return what went wrong as Firecracker says it, e.g. `No such file or directory (os error 2)`."""
    if error.errno is None:
        return str(error)
    return f"{os.strerror(error.errno)} (os error {error.errno})"
