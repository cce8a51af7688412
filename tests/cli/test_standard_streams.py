"""Standard streams that are closed, full, or that nobody reads any more; each is one line, and no traceback."""

import asyncio
import os
import shlex
import subprocess
import sys

import pytest
from watchfiles import awatch

from forktui.cli.printing import while_it_is_read
from forktui.client.private_supervisor import listens
from supervisor.models import CreateRequest, State
from supervisor.programs import flush_or_discard
from tests.harness.checkout import ROOT
from tests.harness.programs import DONE, FAILED, USAGE
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

pytestmark = pytest.mark.slow

READER_GONE = 141
FULL = "standard output cannot be written: No space left on device"
CLOSED = "standard output cannot be written: Bad file descriptor"


def shell(script: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """Run a line of shell with `forktui` and `forktui-supervisor` as its programs."""
    programs = (
        f'forktui() {{ "{sys.executable}" -P -m forktui "$@"; }}\n'
        f'forktui_supervisor() {{ "{sys.executable}" -P -m supervisor "$@"; }}\n'
    )
    ran = subprocess.run(
        ("bash", "-c", programs + script),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("forktui --help >/dev/full", FAILED, FULL),
        ("forktui_supervisor --version >/dev/full", FAILED, FULL),
        ("forktui --help >&-", FAILED, CLOSED),
        ("forktui <&-", USAGE, "must be a terminal"),
        ("forktui demo <&-", USAGE, "must be a terminal"),
        ("forktui ls >&- <&-", FAILED, "no supervisor listens there"),
        ("forktui_supervisor --hypervisor none <&- >&-", USAGE, "it should be 'auto'"),
    ],
)
def test_one_that_fails_is_one_line(script: str, code: int, said: str, environment: dict[str, str]) -> None:
    ended, output, errors = shell(script, environment)
    assert (ended, output) == (code, "")
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("forktui ls 2>/dev/full", FAILED),
        ("forktui 2>&- >&- <&-", USAGE),
        ("forktui_supervisor --hypervisor none 2>/dev/full", USAGE),
    ],
)
def test_where_nobody_can_be_told_the_exit_code_tells(command: str, code: int, environment: dict[str, str]) -> None:
    assert shell(command, environment) == (code, "", "")


@pytest.mark.parametrize("command", ["forktui --help", "forktui_supervisor --version"])
def test_a_reader_that_has_gone_is_quiet(command: str, environment: dict[str, str]) -> None:
    script = f"exec 3> >(exec true); wait $!; {command} >&3"
    assert shell(script, environment) == (READER_GONE, "", "")


async def test_what_a_command_prints_on_a_full_disk_is_missed_and_on_a_gone_pipe_is_not(
    embedded: Home, environment: dict[str, str]
) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="vm", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        await running.client.wait("vm", State.RUNNING, PATIENCE)
        for command in ("ls", "logs vm --follow"):
            named = f"forktui {command} --socket {embedded.socket}"
            full = shell(f"{named} >/dev/full", environment)
            assert full == (FAILED, "", f"forktui: {FULL}\n"), command
            gone = shell(f"exec 3> >(exec true); wait $!; {named} >&3", environment)
            assert gone == (READER_GONE, "", ""), command
        assert shell(f"forktui delete vm --socket {embedded.socket} >&- 2>&- <&-", environment) == (DONE, "", "")


async def test_a_followed_log_ends_with_its_reader_though_nothing_is_printed(
    embedded: Home, environment: dict[str, str]
) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="vm", image="pagewalker", size="64MB", cmd=("passes=1",)))
        await running.client.wait("vm", State.RUNNING, PATIENCE)
        await running.client.standby("vm")
        follow = f"forktui logs vm --follow --socket {embedded.socket}"
        code, _, errors = shell(f"{follow} | head -n 1; exit ${{PIPESTATUS[0]}}", environment)
        assert (code, errors) == (READER_GONE, "")
        await running.client.delete("vm")


async def test_a_reader_that_a_write_has_told_of_ends_nothing_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is closed behind a failed write passes through the loop, which hears of the same reader."""
    reader, writer = os.pipe()
    output = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", output)

    async def follow() -> None:
        try:
            async with while_it_is_read():
                os.close(reader)
                print("a line", flush=True)
        finally:
            for _ in range(10):
                await asyncio.to_thread(int)

    try:
        with pytest.raises(BrokenPipeError):
            await asyncio.create_task(follow())
    finally:
        # Closing it would try the line once more.
        flush_or_discard(output)
        output.close()


@pytest.mark.parametrize("output", [">/dev/full", "> >(exec true)", ">&- <&- 2>&-"])
async def test_a_supervisor_needs_nobody_to_tell(output: str, embedded: Home) -> None:
    command = f"exec {shlex.join(embedded.command())} {output}"
    started = await asyncio.create_subprocess_exec("bash", "-c", command, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(PATIENCE):
            async for _ in awatch(embedded.root, step=5, rust_timeout=100, yield_on_timeout=True):
                if listens(embedded.socket):
                    break
            started.terminate()
            _, errors = await started.communicate()
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    assert started.returncode == DONE
    assert b"Traceback" not in errors
    assert not embedded.socket.exists()


def test_what_cannot_be_encoded_is_no_failure(environment: dict[str, str]) -> None:
    for variables in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}):
        printed = subprocess.run(
            (sys.executable, "-P", "-c", PRINTS),
            env=environment | variables | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=PATIENCE,
        )
        assert (printed.returncode, printed.stderr) == (DONE, b"")
        assert printed.stdout.decode("utf-8")


PRINTS = """
from supervisor.programs import run_program
import sys
sys.exit(run_program("forktui", lambda: print("\\u2026 \\ufffd \\u00e9") or 0))
"""
