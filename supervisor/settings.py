"""The options of both programs: one definition for the command line, the environment and the TOML file.

An option has one name everywhere: `--data-dir`, `FORKTUI_DATA_DIR` and `data_dir` in the file. The command line goes
before the environment, the environment before the file, the file before the default.
"""

import argparse
import errno
import os
import pwd
import stat
import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from supervisor.concurrency.side_threads import in_time
from supervisor.models import FAN_OUT_LIMIT, HypervisorChoice, JailMode, quoted, what_is_wrong
from supervisor.system.regular_files import read_regular
from supervisor.system.unix_sockets import SUN_PATH_BYTES, too_long

PROGRAM: Final = "forktui"
ENVIRONMENT_PREFIX: Final = "FORKTUI_"
LARGEST_CONFIG: Final = 1 << 20
"""Bytes of a TOML file."""
READ_SECONDS: Final = 5.0
"""For which the file may keep a program waiting that starts: it may lie on a mount that does not answer."""
SOCKET_NAME: Final = "supervisor.sock"
LEAST_UIDS: Final = 1000
"""What a range of uids has at least beside the group's number."""
NO_HOME: Final = Path("/nonexistent")
"""The home of a user that has none: what Debian's policy has as that of system users, which is never made."""
SOCKET_NAME_LENGTH: Final = 30
"""Bytes of the longest socket name in the run directory: an id of 24 characters and `.pages`."""


SUPERVISOR_OPTIONS: Final = (
    "data_dir",
    "run_dir",
    "socket",
    "hypervisor",
    "firecracker",
    "embedded_version",
    "config",
    "log_level",
    "log_file",
    "fault_around_pages",
    "record_seconds",
    "record_quiet_seconds",
    "max_connections",
    "max_connections_of_user",
    "console_log_size",
    "max_layers",
    "jail",
    "jailer",
    "jail_uids",
    "jail_memory_overhead",
    "jail_pids",
    "jail_cpu_weight",
)
"""The fields that are on the supervisor's command line."""


class SettingsError(Exception):
    """An option is unknown or has a value that it may not have; the message says where, and what is allowed."""


def default_config() -> Path:
    """Return the TOML file that is read where none is named; it need not exist."""
    folder = Path("/etc") if os.geteuid() == 0 else _base_directory("XDG_CONFIG_HOME", ".config")
    return folder / PROGRAM / f"{PROGRAM}.toml"


def default_data_dir() -> Path:
    """Return where records, snapshots and images are kept."""
    folder = Path("/var/lib") if os.geteuid() == 0 else _base_directory("XDG_DATA_HOME", ".local/share")
    return folder / PROGRAM


def default_run_dir() -> Path:
    """Return where sockets and page maps are: gone with a reboot, and short enough for sun_path."""
    if os.geteuid() == 0:
        return Path("/run", PROGRAM)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime, PROGRAM) if runtime.startswith("/") else Path("/tmp", f"{PROGRAM}-{os.geteuid()}")


def default_state_dir() -> Path:
    """Return where the dashboard keeps what its user has chosen, and says what it ended of; it need not exist."""
    return _base_directory("XDG_STATE_HOME", ".local/state") / PROGRAM


def _base_directory(variable: str, below_home: str) -> Path:
    """Return a directory of the XDG base directory specification, by which a relative path is passed over.

    Not by platformdirs, which for a user without a home makes a directory called `~` where the program is started.
    """
    given = os.environ.get(variable, "")
    return Path(given) if given.startswith("/") else _home() / below_home


def _home() -> Path:
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = ""
    return Path(home) if home.startswith("/") else NO_HOME


def _said(path: object) -> object:
    """Refuse what is no path, though it could be taken for the working directory or fails much later."""
    if path == "":
        raise ValueError("a path may not be empty; name one, or leave it out")
    if isinstance(path, str) and "\0" in path:
        raise ValueError("a path has no NUL in it")
    return path


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("nothing says where that home directory is; name the path without ~") from error


def _absolute(path: Path) -> Path:
    try:
        return _expanded(path).absolute()
    except FileNotFoundError as error:
        raise ValueError("the working directory is gone; name an absolute path") from error


def _resolved(path: Path) -> Path:
    try:
        # The kernel tells a process's working directory without symbolic links: by that VMMs are known again.
        return _absolute(path).resolve()
    except (OSError, RuntimeError) as error:
        raise ValueError("it is a link that leads round in a circle, or cannot be followed") from error


def _short_socket(path: Path) -> Path:
    problem = too_long(path)
    if problem:
        raise ValueError(problem)
    return path


def _short_run_dir(path: Path) -> Path:
    length, limit = len(os.fsencode(path)), SUN_PATH_BYTES - SOCKET_NAME_LENGTH - 1
    if length > limit:
        raise ValueError(f"it may have {limit} bytes, since sockets are put there, and it has {length}")
    return path


def _uid(user: object) -> object:
    """Return the uid of a user's name."""
    if not isinstance(user, str) or user.isdecimal():
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        raise ValueError("this host has no such user; a uid will do as well") from error


def _uids(text: str) -> str:
    first, _, last = text.partition("-")
    whole = first.isdecimal() and last.isdecimal()
    if not whole or not 1000 <= int(first) <= int(last) - LEAST_UIDS or int(last) > 2**32 - 3:
        raise ValueError(f"it has to be FIRST-LAST, more than {LEAST_UIDS} uids from 1000 on that nobody else has")
    return text


AbsolutePath = Annotated[Path, BeforeValidator(_said), AfterValidator(_absolute)]
DataDirectory = Annotated[Path, BeforeValidator(_said), AfterValidator(_resolved)]
SocketPath = Annotated[AbsolutePath, AfterValidator(_short_socket)]
RunDirectory = Annotated[AbsolutePath, AfterValidator(_short_run_dir)]
UidRange = Annotated[str, AfterValidator(_uids)]


class Settings(BaseSettings):
    """What `forktui` and `forktui-supervisor` can be told; each field's docstring is its help text."""

    model_config = SettingsConfigDict(
        validate_default=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_prefix_target="all",
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    config: AbsolutePath | None = None
    """a TOML file with options, in place of the default one"""
    data_dir: DataDirectory = Field(default_factory=default_data_dir)
    """where records, snapshots and images are kept"""
    run_dir: RunDirectory = Field(default_factory=default_run_dir)
    """where sockets and page maps are"""
    socket: SocketPath | None = None
    """the supervisor's socket, in place of supervisor.sock in the run directory"""
    hypervisor: HypervisorChoice = "auto"
    """what runs the VMs; auto is firecracker where it and /dev/kvm work, else embedded"""
    firecracker: AbsolutePath | None = None
    """the Firecracker binary, in place of the one in PATH"""
    embedded_version: str | None = Field(default=None, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-+.][0-9A-Za-z.+-]*)?$")
    """the version of Firecracker that the embedded VMM answers as, to see what is done about its known faults"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """the least level of what is logged; of libraries no less than warning"""
    log_file: AbsolutePath | None = None
    """where the supervisor logs, in place of standard error"""
    fault_around_pages: int = Field(default=64, ge=1, le=4096)
    """the most pages that one page fault is answered with"""
    record_seconds: float = Field(default=5.0, gt=0, le=600)
    """the longest that a fork's first page touches are recorded"""
    record_quiet_seconds: float = Field(default=0.3, gt=0, le=600)
    """recording ends when no new page was touched for this long"""
    max_connections: int = Field(default=512, ge=16, le=65_536)
    """the most connections to the API; fewer where guests need the descriptors"""
    max_connections_of_user: int = Field(default=256, ge=4, le=65_536)
    """the most connections of one user; never more than three quarters of all"""
    console_log_size: int = Field(default=4 << 20, ge=64 << 10, le=1 << 40)
    """the most bytes that are kept of what a guest prints, in console.log and console.log.1 of its instance"""
    max_layers: int = Field(default=8, ge=2, le=64)
    """the most layers of a memory image; when standby or checkpoint adds one more, layers are merged"""
    jail: JailMode = "auto"
    """whether Firecracker runs in jails; auto is on for root where the jailer and cgroups of version 2 are there"""
    jailer: AbsolutePath | None = None
    """the jailer binary, in place of the one beside Firecracker, or the one in PATH"""
    jail_uids: UidRange = "1879048192-1895825407"
    """whose processes jails and page servers are, a uid each; the first is their files' group"""
    jail_memory_overhead: int = Field(default=256 << 20, ge=0, le=1 << 40)
    """the bytes that a jailed VMM may take beyond its guest's memory; 0 sets no bound"""
    jail_pids: int = Field(default=64, ge=0, le=4_194_304)
    """the most threads of a jailed VMM, beyond one for each vCPU; 0 sets no bound"""
    jail_cpu_weight: int = Field(default=100, ge=1, le=10_000)
    """a jailed VMM's share of the processors where they are short, as in cpu.weight"""

    supervisor_user: Annotated[int, BeforeValidator(_uid), Field(ge=0, lt=2**32 - 1)] | None = None
    """the user, by name or uid, whose supervisor a client speaks to, beside root's and its own user's"""
    forks: int = Field(default=8, ge=1, le=FAN_OUT_LIMIT)
    """how many forks the demo makes"""
    headless: bool = False
    """run the demo without the dashboard, and print what happened"""
    json_output: bool = Field(default=False, alias="json")
    """print JSON in place of a table"""
    read_only: bool = False
    """change nothing on the host: whatever would is refused, and no supervisor is started"""
    no_mouse: bool = False
    """leave the mouse to the terminal"""

    @property
    def jail_uid_range(self) -> range:
        """The uids of `jail_uids`."""
        first, _, last = self.jail_uids.partition("-")
        return range(int(first), int(last) + 1)

    @property
    def socket_path(self) -> Path:
        """The supervisor's socket, named or not."""
        return self.socket or self.run_dir / SOCKET_NAME

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources; `config` of the command line or of the environment says which file is one."""
        named = init_settings().get("config", env_settings().get("config"))
        # An empty one is refused by its field.
        table = {} if named == "" else _read_table(_config_file(named), required=named is not None)
        return init_settings, env_settings, InitSettingsSource(settings_cls, table)


def load_settings(options: Mapping[str, object]) -> Settings:
    """Return the settings for a command line's `options`: only those that were given, by field name or alias.

    Raises SettingsError with one line that names the option, where it was set, and what is allowed.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error.errors()[0], given)) from error


def add_options(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Add the options of these fields to a command line; one that is not given leaves no trace in the namespace."""
    for name in names:
        field = Settings.model_fields[name]
        flag = f"--{(field.alias or name).replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=field.description)
        else:
            metavar = name.rpartition("_")[2].upper()
            parser.add_argument(flag, metavar=metavar, default=argparse.SUPPRESS, help=_option_help(field))


def _option_help(field: FieldInfo) -> str:
    choices = get_args(field.annotation)
    allowed = f": {', '.join(choices)}" if choices and all(isinstance(choice, str) for choice in choices) else ""
    default = f" (default {field.default})" if field.default not in (None, PydanticUndefined) else ""
    return f"{field.description}{allowed}{default}"


def _config_file(named: object) -> Path:
    return default_config() if named is None else _absolute(Path(str(named)))


def _read_table(file: Path, *, required: bool) -> dict[str, Any]:
    """Return the options in a TOML file; an optional one that does not exist has none."""
    try:
        text = in_time(READ_SECONDS, partial(_config_text, file))
    except (FileNotFoundError, NotADirectoryError) as error:
        if required:
            raise SettingsError(f"{file}: no such file; --config and FORKTUI_CONFIG name one that exists") from error
        return {}
    except OSError as error:
        # A TimeoutError has its own words.
        raise SettingsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SettingsError(f"{file}: no file of options: {error}") from error
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: not valid TOML: it is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise SettingsError(f"{file}: not valid TOML: it is nested too deep") from error
    except ValueError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error


def _config_text(file: Path) -> bytes:
    """Return what a TOML file has; raises OSError, and ValueError where it is too long to be one.

    A link is followed where root or this user has made it: there are programs that keep such files elsewhere.
    """
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EPERM, f"it is a link of uid {status.st_uid}'s", str(file))
    return read_regular(Path(os.path.realpath(file)), LARGEST_CONFIG)


def _explain(error: ErrorDetails, given: Mapping[str, object]) -> str:
    key = str(error["loc"][0])
    variable = ENVIRONMENT_PREFIX + key.upper()
    file = _config_file(given.get("config") or os.environ.get(ENVIRONMENT_PREFIX + "CONFIG") or None)
    if error["type"] == "extra_forbidden":
        known = ", ".join(sorted(field.alias or name for name, field in Settings.model_fields.items()))
        return f"{file}: unknown key {quoted(key)}; known are {known}"
    if key in given:
        origin = "--" + key.replace("_", "-")
    elif variable in os.environ:
        origin = variable
    else:
        origin = f"{file}: {key}" if key in _read_table(file, required=False) else f"the default of {key}"
    return f"{origin}: {what_is_wrong(error)}"
