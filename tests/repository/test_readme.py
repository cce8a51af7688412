"""What the README shows works as it is shown."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from forktui.actions.registry import ACTIONS, BY_WORD
from forktui.cli import main
from forktui.cli.commands import COMMANDS
from supervisor.guests.command_line import Options, parse_command_line
from supervisor.images.boot_image import load_image
from supervisor.models import CreateRequest
from supervisor.settings import SUPERVISOR_OPTIONS, Settings, load_settings
from tests.harness.checkout import ROOT
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

README = (ROOT / "README.md").read_text()


def block(language: str, having: str) -> str:
    """Return the one block in this language that has this text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if having in text)
    return str(found)


async def test_the_program_with_hypemans_sdk(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="web", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        program = block("python", "hypeman").replace("/run/forktui/supervisor.sock", str(embedded.socket))
        ran = await asyncio.to_thread(
            subprocess.run, (sys.executable, "-c", program), capture_output=True, text=True, timeout=PATIENCE
        )
        assert ran.stderr == ""
        assert ran.stdout.split()[0] == "web"
        await running.client.delete("web")


def test_the_image(tmp_path: Path) -> None:
    image = tmp_path / "alpine"
    image.mkdir()
    (image / "vm.json").write_text(block("json", "rootfs.ext4"))
    for name in ("vmlinux", "rootfs.ext4"):
        (image / name).write_bytes(b"\0")
    assert load_image(tmp_path, "alpine").config.boot_source.kernel_image_path == "vmlinux"


def test_the_way_to_eight_forked_linux_vms_is_the_same_in_both_documents() -> None:
    three = block("sh", "image build")
    assert len(three.splitlines()) == 3
    assert three in (ROOT / "docs" / "images.md").read_text()


def test_the_options_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORKTUI_FIRECRACKER", raising=False)
    file = tmp_path / "forktui.toml"
    file.write_text(block("toml", "hypervisor"))
    settings = load_settings({"config": file})
    assert (settings.hypervisor, settings.firecracker) == ("firecracker", Path("/usr/local/bin/firecracker"))


def test_the_commands_are_understood() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.partition("#")[0].strip() for text in blocks for line in text.splitlines()]
    commands = [line.rpartition("&& ")[2].removeprefix(".venv/bin/") for line in lines]
    ours = [shlex.split(command)[1:] for command in commands if command.split()[0] == "forktui"]
    assert len(ours) >= 6
    for arguments in ours:
        main.parser().parse_args(arguments)


def test_each_command_line_takes_the_options_that_are_said_of_it() -> None:
    table = README.partition("| option | default | says |")[2].partition("\n\n")[0]
    options = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert set(options) == {field.alias or name for name, field in Settings.model_fields.items()}
    assert set(options[: options.index("jail_cpu_weight") + 1]) == set(SUPERVISOR_OPTIONS)
    client = {"socket", "run_dir", "supervisor_user", "config", "read_only", "no_mouse"}
    assert {*main.CLIENT_OPTIONS, *main.DASHBOARD_OPTIONS} == client
    assert {name for command in COMMANDS for name in command.options} == {"json_output", "hypervisor"}
    assert [command.name for command in COMMANDS if "hypervisor" in command.options] == ["create"]


def test_the_words_of_pagewalker() -> None:
    words = re.findall(r"`(\w+=\d+)`", README.partition("`pagewalker` takes words")[2].partition("\n\n")[0])
    assert parse_command_line(" ".join(word for word in words if word != "passes=0"), 128 << 20) == Options()
    assert len(words) == len(Options._fields) + 1


def test_the_verbs_are_all_commands_and_actions() -> None:
    listed = README.partition("Every verb is a command:")[2].partition(";")[0]
    assert set(re.findall(r"`([a-z-]+)`", listed)) == {command.name for command in COMMANDS}
    assert set(re.findall(r"`:([a-z-]+)", README)) <= set(BY_WORD)


def test_the_keys() -> None:
    rows = re.findall(r"^\| (`.*?) \|", README.partition("| key | does |")[2].partition("\n\n")[0], re.MULTILINE)
    shown = {key for row in rows for key in re.findall(r"`(.)`", row)} - set("jk")
    assert shown <= {action.key for action in ACTIONS}
    assert {"f", "F", "d", "s", "r", "x", "/", "?", "q"} <= shown
