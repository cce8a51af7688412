"""`forktui console` on a terminal of its own: typed into, left, and gone on with through the supervisor's restarts."""

import asyncio
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

from supervisor.models import Instance, State
from tests.api.test_console import guest, keyboard_of, prints, taken
from tests.harness.own_terminal import COLUMNS, HOSTILE, LINES, Terminal, on_a_terminal
from tests.harness.supervisor_process import Home, supervisor


def command(socket: Path, vm: Instance, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "forktui", "console", "--socket", str(socket), *options, vm.name)


async def shown(terminal: Terminal, words: str) -> str:
    return await asyncio.to_thread(terminal.until, words)


def exit_code(pid: int) -> int:
    """The exit code of a program that has ended, which is left to be waited for."""
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    return status.si_status


async def test_keys_reach_the_guest_and_its_words_the_terminal_until_one_leaves(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        with (
            keyboard_of(vm) as keyboard,
            on_a_terminal(*command(running.client.socket, vm)) as (terminal, pid),
        ):
            before = termios.tcgetattr(terminal.descriptor)
            await shown(terminal, f"-- {vm.name}: typed into; ~. leaves, ~? helps --")
            terminal.press("ls ~\x03\x1a\r~~x")
            assert await taken(keyboard, 9) == b"ls ~\x03\x1a\r~x"
            prints(vm, b"\nfirst\nsecond $ \x1b[1;32mgreen\x1b[0m")
            screen = await shown(terminal, "green")
            assert "\nsecond $ green" in screen, "each line begins at the left, though the guest sends no \\r"
            terminal.press("\r~s")
            size = f"\rstty rows {LINES} cols {COLUMNS}\r".encode()
            assert await taken(keyboard, len(size)) == size
            terminal.press("~?")
            await shown(terminal, "leave the console; the guest goes on")
            prints(vm, HOSTILE.encode() + b"\x1b]52;c;eA==\x07\x1b[6nharmless")
            await shown(terminal, "harmless")
            terminal.press("\r~.")
            await asyncio.to_thread(terminal.drain)
            assert exit_code(pid) == 0
            assert termios.tcgetattr(terminal.descriptor)[3] == before[3] | (termios.ECHO | termios.ICANON)
            assert b"\x1b]" not in terminal.written
            assert b"\x1b[6n" not in terminal.written
        assert (await running.client.instance(vm.id)).vmm_pid == vm.vmm_pid


async def test_it_goes_on_with_the_next_supervisor_and_nothing_is_printed_twice(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        socket = running.client.socket
        with keyboard_of(vm) as keyboard, on_a_terminal(*command(socket, vm)) as (terminal, pid):
            await shown(terminal, "typed into")
            prints(vm, b"once\n")
            await shown(terminal, "once")
            await running.end(signal.SIGKILL)
            await shown(terminal, "it is tried again, ~. leaves")
            async with supervisor(embedded) as second:
                prints(vm, b"while nobody was there\n")
                await shown(terminal, "connected again")
                await shown(terminal, "while nobody was there")
                terminal.press("still typed\r")
                assert await taken(keyboard, 12) == b"still typed\r"
                assert terminal.display.count("once") == 1
                await second.client.stop(vm.id)
                await shown(terminal, "-- its VM has ended --")
                await asyncio.to_thread(terminal.drain)
                assert exit_code(pid) == 0


async def test_who_only_watches_types_nothing_and_who_comes_second_is_told_who_types(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        socket = running.client.socket
        with (
            keyboard_of(vm) as keyboard,
            on_a_terminal(*command(socket, vm)) as (first, first_pid),
            on_a_terminal(*command(socket, vm, "--watch")) as (watcher, watcher_pid),
        ):
            await shown(first, "typed into")
            await shown(watcher, f"-- {vm.name}: watched")
            watcher.press("rm -rf /\r")
            first.press("seen")
            assert await taken(keyboard, 4) == b"seen"
            prints(vm, b"for both")
            await shown(first, "for both")
            await shown(watcher, "for both")
            words = command(socket, vm)
            ran = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, input="x")
            assert ran.returncode == 1
            assert f"(pid {first_pid}) types into its console already" in ran.stderr
            for terminal in (first, watcher):
                terminal.press("\r~.")
            await asyncio.to_thread(watcher.drain)
            assert exit_code(watcher_pid) == 0


async def test_the_dashboard_gives_the_guest_its_terminal_and_has_it_again(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        words = (sys.executable, "-m", "forktui", "--socket", str(running.client.socket))
        with keyboard_of(vm) as keyboard, on_a_terminal(*words) as (terminal, pid):
            await shown(terminal, "Standby" if vm.state is State.STANDBY else "Running")
            terminal.press("c")
            await shown(terminal, f"Console of {vm.name}")
            await shown(terminal, "i types")
            terminal.press("i")
            await shown(terminal, "typed into; ~. leaves, ~? helps")
            terminal.press("q and i and \x03")
            assert await taken(keyboard, 13) == b"q and i and \x03"
            prints(vm, b"\nan answer")
            await shown(terminal, "an answer")
            terminal.press("\r~.")
            await shown(terminal, f"Console of {vm.name}")
            terminal.press("\x1b")
            await asyncio.to_thread(terminal.until_gone, "Console of")
            terminal.press("q")
            await asyncio.to_thread(terminal.drain)
            assert exit_code(pid) == 0


async def test_what_comes_by_a_pipe_is_typed_as_it_is_and_its_end_leaves(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        vm = await guest(running)
        with keyboard_of(vm) as keyboard:
            words = command(running.client.socket, vm)
            ran = await asyncio.to_thread(subprocess.run, words, capture_output=True, input=b"~.\nuname -a\n")
            assert ran.returncode == 0, ran.stderr
            assert await taken(keyboard, 12) == b"~.\nuname -a\n"
        for options in ((*words, "--read-only"), (*words[:-1], "nobody")):
            refused = await asyncio.to_thread(subprocess.run, options, capture_output=True, text=True, input="")
            assert refused.returncode == 1
            assert "Traceback" not in refused.stderr
            assert "--read-only" in refused.stderr or "nobody" in refused.stderr
