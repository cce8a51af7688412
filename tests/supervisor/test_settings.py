"""Where an option's value comes from, and what is said of one that may not be."""

import os
from collections.abc import Iterator
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

NOBODY = 65534


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
        ("console_log_size", "100000", "100000", 100_000),
        ("max_layers", "3", "3", 3),
        ("forks", "5", "5", 5),
        ("headless", "1", "true", True),
        ("json", "true", "true", True),
        ("no_mouse", "1", "true", True),
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


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKTUI_SOCKET", "")
    monkeypatch.setenv("FORKTUI_CONFIG", "")
    assert load_settings({}).socket is None


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


def test_a_file_that_is_named_must_exist_and_the_default_one_need_not(tmp_path: Path) -> None:
    assert load_settings({}).config is None
    assert "no-such.toml: no such file" in refusal({"config": tmp_path / "no-such.toml"})


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    assert "options.toml: not valid TOML" in refusal({"config": config(tmp_path, "forks = \n")})


def test_a_directory_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    assert refusal({"config": tmp_path}) == f"{tmp_path}: cannot be read: Is a directory"


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
