"""Where an option's value comes from, and what is said of one that may not be."""

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor import settings as module
from supervisor.settings import (
    Settings,
    SettingsError,
    default_config,
    default_data_dir,
    default_run_dir,
    load_settings,
)
from supervisor.system.unix_sockets import SUN_PATH_BYTES
from tests.harness.hanging_mount import hanging

NOBODY = 65534
NO_USER = 12345
"""In no passwd file of a host that this runs on."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep this host's own options out: its FORKTUI_* variables and its default file."""
    for name in [name for name in os.environ if name.startswith("FORKTUI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "default_config", lambda: tmp_path / "none.toml")
    yield


def config(folder: Path, text: str) -> Path:
    """Write a TOML file."""
    file = folder / "options.toml"
    file.write_text(text)
    return file


def refusal(options: dict[str, object]) -> str:
    """Return the one line with which the options are refused."""
    with pytest.raises(SettingsError) as caught:
        load_settings(options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ("data_dir", "run_dir", "socket", "log_file"))
def test_a_path_below_a_working_directory_that_is_gone_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    message = refusal({name: "below"})
    assert "the working directory is gone; name an absolute path" in message
    assert name in message.replace("-", "_")


@pytest.mark.parametrize("home", ["", "below", "."])
def test_a_home_that_is_no_absolute_path_is_that_of_the_users_entry(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert default_data_dir() == Path(pwd.getpwuid(1).pw_dir, ".local/share/forktui")


def test_a_data_directory_that_leads_round_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert "leads round in a circle" in refusal({"data_dir": tmp_path / "circle"})


def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings({}).forks == 8
    file = config(tmp_path, "forks = 2\nhypervisor = 'embedded'\nrecord_seconds = 1.5\n")
    monkeypatch.setenv("FORKTUI_CONFIG", str(file))
    assert load_settings({}).forks == 2
    monkeypatch.setenv("FORKTUI_FORKS", "3")
    assert load_settings({}).forks == 3
    assert load_settings({"forks": "4"}).forks == 4
    assert (load_settings({}).hypervisor, load_settings({}).record_seconds) == ("embedded", 1.5)


@pytest.mark.parametrize(
    ("name", "text", "toml", "value"),
    [
        ("data_dir", "/d", "'/d'", Path("/d")),
        ("run_dir", "/r", "'/r'", Path("/r")),
        ("socket", "/s", "'/s'", Path("/s")),
        ("hypervisor", "firecracker", "'firecracker'", "firecracker"),
        ("firecracker", "/f", "'/f'", Path("/f")),
        ("embedded_version", "1.14.0", "'1.14.0'", "1.14.0"),
        ("log_level", "debug", "'debug'", "debug"),
        ("log_file", "/l", "'/l'", Path("/l")),
        ("fault_around_pages", "16", "16", 16),
        ("record_seconds", "0.5", "0.5", 0.5),
        ("record_quiet_seconds", "0.1", "0.1", 0.1),
        ("max_connections", "99", "99", 99),
        ("max_connections_of_user", "9", "9", 9),
        ("console_log_size", "100000", "100000", 100_000),
        ("max_layers", "3", "3", 3),
        ("jail", "off", "'off'", "off"),
        ("jailer", "/j", "'/j'", Path("/j")),
        ("jail_uids", "2000-9000", "'2000-9000'", "2000-9000"),
        ("jail_memory_overhead", "0", "0", 0),
        ("jail_pids", "9", "9", 9),
        ("jail_cpu_weight", "50", "50", 50),
        ("supervisor_user", "12345", "12345", 12345),
        ("forks", "5", "5", 5),
        ("headless", "1", "true", True),
        ("json", "true", "true", True),
        ("no_mouse", "1", "true", True),
        ("read_only", "1", "true", True),
    ],
)
def test_each_option_has_one_name_everywhere(
    name: str, text: str, toml: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = "json_output" if name == "json" else name
    default = getattr(load_settings({}), field)
    assert default != value
    assert getattr(load_settings({field: text}), field) == value
    assert getattr(load_settings({"config": config(tmp_path, f"{name} = {toml}\n")}), field) == value
    monkeypatch.setenv(f"FORKTUI_{name.upper()}", text)
    assert getattr(load_settings({}), field) == value


def test_no_option_is_left_out_of_the_test_before() -> None:
    marks = test_each_option_has_one_name_everywhere.pytestmark  # type: ignore[attr-defined]
    tested = {case[0] for case in marks[0].args[1]}
    assert tested | {"config"} == {field.alias or name for name, field in Settings.model_fields.items()}


def test_a_variable_without_the_prefix_is_nobodys_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSON", "1")
    monkeypatch.setenv("FORKS", "99")
    settings = load_settings({})
    assert (settings.json_output, settings.forks) == (False, 8)


@pytest.mark.parametrize("name", ["config", "data_dir", "run_dir", "socket", "firecracker", "log_file"])
def test_an_empty_path_is_refused_wherever_it_is_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = "'' is refused: a path may not be empty; name one, or leave it out"
    assert refusal({name: ""}) == f"--{name.replace('_', '-')}: {empty}"
    if name != "config":
        file = config(tmp_path, f"{name} = ''\n")
        assert refusal({"config": file}) == f"{file}: {name}: {empty}"
    monkeypatch.setenv(f"FORKTUI_{name.upper()}", "")
    assert refusal({}) == f"FORKTUI_{name.upper()}: {empty}"


@pytest.mark.parametrize("name", ["hypervisor", "embedded_version", "log_level", "forks", "json", "max_layers"])
def test_an_empty_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FORKTUI_{name.upper()}", "")
    assert refusal({}).startswith(f"FORKTUI_{name.upper()}: '' is refused: it should ")


def test_a_path_that_cannot_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path, 'log_file = "a\\u0000b"\n')
    assert refusal({"config": file}) == f"{file}: log_file: 'a\\x00b' is refused: a path has no NUL in it"
    assert "nothing says where that home directory is" in refusal({"data_dir": "~no-such-user/x"})


def test_relative_paths_and_homes_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    settings = load_settings({"data_dir": "data", "firecracker": "~/firecracker"})
    assert settings.data_dir == tmp_path / "data"
    assert settings.firecracker == Path("/home/someone/firecracker")


def test_the_socket_is_in_the_run_directory_unless_named() -> None:
    assert load_settings({"run_dir": "/run/x"}).socket_path == Path("/run/x/supervisor.sock")
    assert load_settings({"run_dir": "/run/x", "socket": "/s"}).socket_path == Path("/s")


def test_root_has_the_systems_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert default_data_dir() == Path("/var/lib/forktui")
    assert default_run_dir() == Path("/run/forktui")
    assert default_config() == Path("/etc/forktui/forktui.toml")


def test_others_have_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setenv("HOME", "/home/someone")
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/65534")
    assert default_data_dir() == Path("/home/someone/.local/share/forktui")
    assert default_config() == Path("/home/someone/.config/forktui/forktui.toml")
    assert default_run_dir() == Path("/run/user/65534/forktui")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_run_dir() == Path("/tmp/forktui-65534")


def test_a_user_without_a_home_has_a_data_directory_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NO_USER)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for home in (None, "", "relative"):
        if home is not None:
            monkeypatch.setenv("HOME", home)
        assert default_data_dir() == Path("/nonexistent/.local/share/forktui")
        assert default_config() == Path("/nonexistent/.config/forktui/forktui.toml")
        assert load_settings({}).socket_path == Path(f"/tmp/forktui-{NO_USER}/supervisor.sock")


def test_a_relative_or_empty_base_directory_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setenv("HOME", "/home/someone")
    for given in ("relative", ""):
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, given)
        assert default_data_dir() == Path("/home/someone/.local/share/forktui")
        assert default_config() == Path("/home/someone/.config/forktui/forktui.toml")
        assert default_run_dir() == Path("/tmp/forktui-65534")


def test_a_file_that_is_named_must_exist_and_the_default_one_need_not(tmp_path: Path) -> None:
    assert load_settings({}).config is None
    assert "no-such.toml: no such file" in refusal({"config": tmp_path / "no-such.toml"})


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    assert "options.toml: not valid TOML" in refusal({"config": config(tmp_path, "forks = \n")})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfef\0o\0r\0k\0s\0", "it is not UTF-8 at byte 0"),
        (b"f\0o\0r\0k\0s\0", "Expected '='"),
        (b"forks = " + b"[" * 5000, "it is nested too deep"),
        (b"forks = " + b"1" * 5000, "Exceeds the limit"),
    ],
    ids=["UTF-16", "UTF-16 without a mark", "nested", "long"],
)
def test_a_file_that_cannot_be_toml_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_bytes(content)
    assert refusal({"config": file}).startswith(f"{file}: not valid TOML: {said}")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_bytes(b"\xef\xbb\xbfforks = 3\n")
    assert load_settings({"config": file}).forks == 3


def test_a_default_file_below_what_is_no_directory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "default_config", lambda: Path("/dev/null/.config/forktui/forktui.toml"))
    assert load_settings({}).forks == 8


def test_a_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert refusal({"config": tmp_path}) == f"{tmp_path}: cannot be read: it is a directory, and no file"


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal({"config": config(tmp_path, "fork = 2\n")})
    assert "options.toml: unknown key 'fork'; known are config, console_log_size, data_dir," in message


def test_a_refusal_names_where_the_value_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = "'auto', 'firecracker' or 'embedded'"
    file = config(tmp_path, "hypervisor = 'qemu'\n")
    assert refusal({"config": file}) == f"{file}: hypervisor: 'qemu' is refused: it should be {allowed}"
    monkeypatch.setenv("FORKTUI_HYPERVISOR", "xen")
    assert refusal({"config": file}) == f"FORKTUI_HYPERVISOR: 'xen' is refused: it should be {allowed}"
    assert refusal({"hypervisor": "kvm"}) == f"--hypervisor: 'kvm' is refused: it should be {allowed}"


@pytest.mark.parametrize(
    ("name", "value"), [("forks", "0"), ("forks", "many"), ("record_seconds", "0"), ("fault_around_pages", "-1")]
)
def test_an_absurd_number_is_refused(name: str, value: str) -> None:
    assert refusal({name: value}).startswith(f"--{name.replace('_', '-')}: '{value}' is refused: it should be ")


def test_a_socket_path_that_the_kernel_could_not_take_is_refused() -> None:
    longest = "/tmp/" + "s" * (SUN_PATH_BYTES - 5)
    assert load_settings({"socket": longest}).socket_path == Path(longest)
    assert "--socket" in refusal({"socket": longest + "s"})
    assert "107 bytes, and this one has 108" in refusal({"socket": longest + "s"})


def test_a_run_directory_that_leaves_no_room_for_sockets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = "/tmp/" + "r" * 71
    assert len(f"{longest}/{'i' * 24}.pages") == SUN_PATH_BYTES
    assert load_settings({"run_dir": longest}).run_dir == Path(longest)
    assert "--run-dir" in refusal({"run_dir": longest + "r"})
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", longest)
    assert "the default of run_dir" in refusal({})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).forks = 3  # type: ignore[misc]


def test_a_data_directory_behind_a_link_is_known_by_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert load_settings({"data_dir": tmp_path / "link" / "data"}).data_dir == tmp_path / "disk" / "data"


DEEP = "a = " + "[" * 100_000


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def foreign_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")
    os.lchown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "cannot be read: it is a FIFO, and no file"),
        (Path.mkdir, "cannot be read: it is a directory, and no file"),
        (lambda path: path.symlink_to("/dev/zero"), "cannot be read: it is a device, and no file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: "),
        (huge, "no file of options: it has more than 1048576 bytes"),
        (lambda path: path.write_text(DEEP), "not valid TOML: it is nested too deep"),
        (foreign_link, "a link of uid 65534's"),
    ],
    ids=["fifo", "folder", "device", "loop", "huge", "deep", "link of another user's"],
)
def test_what_is_no_file_of_options_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    if "uid" in reason and os.geteuid() != 0:
        pytest.skip("another user's file takes root")
    file = tmp_path / "options.toml"
    make(file)
    message = refusal({"config": file})
    assert message.startswith(f"{file}: ")
    assert reason in message


def test_a_file_on_a_mount_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_SECONDS", 0.1)
    with hanging(tmp_path):
        assert refusal({"config": tmp_path / "x.toml"}) == f"{tmp_path}/x.toml: cannot be read: no answer after 0 s"


def test_a_link_of_ones_own_to_the_options_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    config(tmp_path / "elsewhere", "forks = 2\n")
    (tmp_path / "link").symlink_to("elsewhere/options.toml")
    assert load_settings({"config": tmp_path / "link"}).forks == 2


@pytest.mark.parametrize("text", ["", "5", "5-", "0-70000", "9000-2000", "2000-2010", "2000-4294967295", "-5-70000"])
def test_what_is_no_range_of_uids_is_refused(text: str) -> None:
    assert "FIRST-LAST" in refusal({"jail_uids": text})


def test_a_range_of_uids_has_its_first_and_its_last() -> None:
    assert load_settings({"jail_uids": "2000-3000"}).jail_uid_range == range(2000, 3001)
