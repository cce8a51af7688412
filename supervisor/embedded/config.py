"""The JSON of requests and of the config file, as checked values. Pure.

Names, required fields and messages are Firecracker's (src/vmm/src/vmm_config): unknown fields of a section are
refused, unknown sections of a config file are not.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from supervisor.embedded.refusals import FaultError, MalformedError

MAX_VCPUS: Final = 32
MAX_MEM_SIZE_MIB: Final = 255 << 10
"""Firecracker has another gap at 256 GiB; the one below 4 GiB takes 1 GiB."""
COMMAND_LINE_BYTES: Final = 2048
"""Firecracker's CMDLINE_MAX_SIZE (src/vmm/src/arch/x86_64/layout.rs)."""

TRACKING_FIELDS: Final = ("enable_diff_snapshots", "track_dirty_pages")
"""The names of one field of a load; Firecracker before 1.13 knows the first only."""
CLOCK_FIELD: Final = "clock_realtime"

_DEVICES: Final = (
    "drives",
    "network-interfaces",
    "pmem",
    "cpu-config",
    "entropy",
    "memory-hotplug",
    "mmds-config",
    "vsock",
)


class BootSource(NamedTuple):
    """What to boot; `boot_args` is the kernel command line."""

    kernel_image_path: str
    boot_args: str


class MachineConfig(NamedTuple):
    """The size of the machine; memory in MiB."""

    vcpu_count: int = 1
    mem_size_mib: int = 128
    smt: bool = False
    track_dirty_pages: bool = False
    huge_pages: str = "None"


class Balloon(NamedTuple):
    """A balloon device: the MiB that it asks for, and options; a simulated guest is never out of memory."""

    amount_mib: int
    deflate_on_oom: bool
    stats_polling_interval_s: int = 0


class VmConfig(NamedTuple):
    """A whole config file."""

    boot_source: BootSource
    machine_config: MachineConfig
    balloon: Balloon | None = None


class SnapshotCreate(NamedTuple):
    """Where a snapshot goes; `snapshot_type` is Full or Diff."""

    snapshot_path: str
    mem_file_path: str
    snapshot_type: str = "Full"


class SnapshotLoad(NamedTuple):
    """Where a snapshot comes from; `backend_path` is a mem-file (File) or a page server's socket (Uffd)."""

    snapshot_path: str
    backend_type: str
    backend_path: str
    resume_vm: bool
    track_dirty_pages: bool


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text; raises MalformedError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise MalformedError("recursion limit exceeded") from None
    except ValueError as error:
        raise MalformedError(str(error)) from None


def fields(value: Any, required: Mapping[str, type], optional: Mapping[str, type]) -> dict[str, Any]:
    """Return `value` as an object with exactly these fields; one that is optional may be null or absent."""
    if not isinstance(value, dict):
        raise MalformedError(f"invalid type: {_describe(value)}, expected an object")
    known = {**required, **optional}
    for name, content in value.items():
        if name not in known:
            raise MalformedError(f"unknown field `{name}`, expected {_one_of(tuple(known))}")
        if not (content is None and name in optional):
            _check_type(name, content, known[name])
    for name in required:
        if name not in value:
            raise MalformedError(f"missing field `{name}`")
    return {name: content for name, content in value.items() if content is not None}


def variant(name: str, known: Sequence[str]) -> str:
    """Return `name` if it is one of the known ones; raises MalformedError."""
    if name not in known:
        raise MalformedError(f"unknown variant `{name}`, expected {_one_of(known)}")
    return name


def boot_source(value: Any) -> BootSource:
    """Raises MalformedError, or FaultError where the values cannot be used."""
    given = fields(value, {"kernel_image_path": str}, {"initrd_path": str, "boot_args": str})
    if "initrd_path" in given:
        raise FaultError(
            "Boot source error: the embedded VMM takes no initrd; use Firecracker for a guest that needs one"
        )
    boot_args = given.get("boot_args", "")
    if len(boot_args) >= COMMAND_LINE_BYTES or not (boot_args.isascii() and boot_args.isprintable()):
        raise FaultError(
            "Boot source error: The kernel command line is invalid: "
            f"it must be printable ASCII of less than {COMMAND_LINE_BYTES} bytes"
        )
    return BootSource(given["kernel_image_path"], boot_args)


def machine_config(value: Any) -> MachineConfig:
    """Raises MalformedError, or FaultError where the values cannot be used."""
    given = fields(
        value,
        {"vcpu_count": int, "mem_size_mib": int},
        {"smt": bool, "cpu_template": str, "track_dirty_pages": bool, "huge_pages": str},
    )
    if given.pop("cpu_template", "None") != "None":
        raise FaultError("Machine config error: the simulated CPU has no templates; leave cpu_template out")
    if given.get("huge_pages", "None") != "None":
        raise FaultError("Machine config error: the embedded VMM has pages of 4 KiB only; leave huge_pages out")
    config = MachineConfig(**given)
    odd_with_smt = config.smt and config.vcpu_count > 1 and config.vcpu_count % 2 == 1
    if not 1 <= config.vcpu_count <= MAX_VCPUS or odd_with_smt:
        raise FaultError(
            "Machine config error: The number of vCPUs must be greater than 0, "
            f"at most {MAX_VCPUS} and must be 1 or an even number if SMT is enabled."
        )
    if not 1 <= config.mem_size_mib <= MAX_MEM_SIZE_MIB:
        raise FaultError(
            f"Machine config error: mem_size_mib is {config.mem_size_mib}, and the embedded VMM has 1 to "
            f"{MAX_MEM_SIZE_MIB} MiB: it ends where Firecracker's second MMIO gap begins"
        )
    return config


def balloon(value: Any) -> Balloon:
    """Raises MalformedError."""
    given = fields(value, {"amount_mib": int, "deflate_on_oom": bool}, {"stats_polling_interval_s": int})
    _check_unsigned(given, "amount_mib", 32)
    _check_unsigned(given, "stats_polling_interval_s", 16)
    return Balloon(**given)


def balloon_update(value: Any) -> int:
    """Return how many MiB the balloon is to ask for; raises MalformedError."""
    given = fields(value, {"amount_mib": int}, {})
    _check_unsigned(given, "amount_mib", 32)
    amount_mib: int = given["amount_mib"]
    return amount_mib


def vm_config(value: Any) -> VmConfig:
    """Raises MalformedError, or FaultError where the values cannot be used or name a device that it has not."""
    if not isinstance(value, dict):
        raise MalformedError(f"invalid type: {_describe(value)}, expected an object")
    for name in ("drives", "boot-source"):
        if name not in value:
            raise MalformedError(f"missing field `{name}`")
    for name in _DEVICES:
        if value.get(name):
            raise FaultError(f"the embedded VMM has no {name}; leave the section empty, or use Firecracker")
    machine, device = value.get("machine-config"), value.get("balloon")
    return VmConfig(
        boot_source(value["boot-source"]),
        MachineConfig() if machine is None else machine_config(machine),
        None if device is None else balloon(device),
    )


def action(value: Any) -> str:
    """Return the action's name; raises MalformedError."""
    name: str = fields(value, {"action_type": str}, {})["action_type"]
    return variant(name, ("FlushMetrics", "InstanceStart", "SendCtrlAltDel"))


def vm_state(value: Any) -> str:
    """Return the state asked for; raises MalformedError."""
    name: str = fields(value, {"state": str}, {})["state"]
    return variant(name, ("Paused", "Resumed"))


def snapshot_create(value: Any) -> SnapshotCreate:
    """Raises MalformedError."""
    given = fields(value, {"snapshot_path": str, "mem_file_path": str}, {"snapshot_type": str})
    create = SnapshotCreate(**given)
    variant(create.snapshot_type, ("Diff", "Full"))
    return create


def tracking_fields(version: str) -> Sequence[str]:
    """Return which of TRACKING_FIELDS a version of Firecracker knows."""
    numbers = tuple(int(number) if number.isdigit() else 0 for number in version.split(".")[:2])
    return TRACKING_FIELDS if numbers >= (1, 13) else TRACKING_FIELDS[:1]


def sets_clock(version: str) -> bool:
    """Return whether a version of Firecracker has CLOCK_FIELD: 1.14.4, 1.15.1, 1.16.0 and later ones of each."""
    numbers = tuple(int(number) if number.isdigit() else 0 for number in version.split("."))
    return numbers >= (1, 16) or any(first <= numbers < (1, first[1] + 1) for first in ((1, 14, 4), (1, 15, 1)))


def snapshot_load(value: Any, tracking: Sequence[str] = TRACKING_FIELDS, clock: bool = True) -> SnapshotLoad:
    """Raises MalformedError; `tracking` names the fields that turn dirty tracking on.

    CLOCK_FIELD is one with `clock`, and nothing follows from it: the simulated CPU has no clock.
    """
    given = fields(
        value,
        {"snapshot_path": str},
        {
            "mem_backend": dict,
            "mem_file_path": str,
            **dict.fromkeys(tracking, bool),
            **({CLOCK_FIELD: bool} if clock else {}),
            "resume_vm": bool,
        },
    )
    if ("mem_backend" in given) == ("mem_file_path" in given):
        many = "mem_backend" in given
        raise MalformedError(
            f"{'too many fields' if many else 'missing field'}: either `mem_backend` or `mem_file_path` "
            f"{'exclusively ' if many else ''}is required"
        )
    backend = given.get("mem_backend", {"backend_type": "File", "backend_path": given.get("mem_file_path")})
    backend = fields(backend, {"backend_type": str, "backend_path": str}, {})
    return SnapshotLoad(
        given["snapshot_path"],
        variant(backend["backend_type"], ("File", "Uffd")),
        backend["backend_path"],
        given.get("resume_vm", False),
        any(given.get(name, False) for name in tracking),
    )


def _check_type(name: str, value: Any, expected: type) -> None:
    # A bool is an int to Python, and is not to JSON.
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise MalformedError(f"invalid type: {_describe(value)}, expected {expected.__name__} in `{name}`")
    if isinstance(value, str) and not _is_text(value):
        raise MalformedError(f"invalid value in `{name}`: it holds a NUL or an unpaired surrogate")


def _check_unsigned(given: Mapping[str, Any], name: str, bits: int) -> None:
    if not 0 <= given.get(name, 0) < 1 << bits:
        raise MalformedError(f"invalid value: {_describe(given[name])}, expected u{bits} in `{name}`")


def _is_text(value: str) -> bool:
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {json.dumps(value)[:64]}"


def _one_of(names: Sequence[str]) -> str:
    quoted = ", ".join(f"`{name}`" for name in names)
    return quoted if len(names) == 1 else f"one of {quoted}"
