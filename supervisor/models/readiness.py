"""When a guest is ready: a line on its console, or a port that answers. As it is given, and what is meant. Pure."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from supervisor.models.line_patterns import LinePattern

LONGEST_READINESS: Final = 256
"""Characters."""
MOST_TCP_PORT: Final = 0xFFFF
MOST_VSOCK_PORT: Final = 0xFFFF_FFFE
"""The next one is VMADDR_PORT_ANY (include/uapi/linux/vm_sockets.h)."""

_FORMS: Final = "console:PATTERN, tcp:ADDRESS:PORT or vsock:PORT"


@dataclass(frozen=True)
class Readiness:
    """What is waited for; `address` is of tcp only, an IP address."""

    kind: Literal["console", "tcp", "vsock"]
    pattern: LinePattern | None = None
    address: str = ""
    port: int = 0

    @property
    def is_cheap(self) -> bool:
        """Whether anybody may wait for it: no port is spoken to, and looking at the console takes next to no time."""
        return self.pattern is not None and self.pattern.is_plain


def parse_readiness(text: str) -> Readiness:
    """Return what is meant; raises ValueError, which says what may be given."""
    kind, _, rest = text.partition(":")
    if not text.isprintable():
        raise ValueError("it has to be printable, in one line")
    match kind:
        case "console":
            return Readiness("console", pattern=LinePattern(rest))
        case "tcp":
            address, _, port = rest.rpartition(":")
            return Readiness("tcp", address=_address(address), port=_port(port, MOST_TCP_PORT))
        case "vsock":
            return Readiness("vsock", port=_port(rest, MOST_VSOCK_PORT))
    raise ValueError(f"a readiness is {_FORMS}")


def on_load(text: str | None) -> str | None:
    """Return what of a readiness that was given for boots holds of a restore and of forks too.

    A line is printed once, and may lie in the past of what is restored; an address is another's once there are forks.
    """
    return text if text is not None and text.startswith("vsock:") else None


def on_later_load(text: str | None) -> str | None:
    """Return what of a readiness holds of an instance's loads but the first: not a line, which may lie in the past."""
    return None if text is None or text.startswith("console:") else text


def _address(text: str) -> str:
    try:
        return str(ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError(f"{text[:64]!r} is no IP address; a readiness is {_FORMS}") from None


def _port(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= most):
        raise ValueError(f"a port is a number from 1 to {most}; a readiness is {_FORMS}")
    return int(text)


def _checked(text: str) -> str:
    parse_readiness(text)
    return text


ReadinessText = Annotated[str, Field(max_length=LONGEST_READINESS), AfterValidator(_checked)]
