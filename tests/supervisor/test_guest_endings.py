"""A guest that ends by itself is told by the end that it came to: in events, on the instance, and as a death or not."""

import signal
from pathlib import Path

import pytest

from supervisor.guests.pagewalker import HALT, PANIC, REBOOT, RESET, TRIPLE_FAULT
from supervisor.models import CreateRequest, Instance, LastWords, State
from supervisor.telemetry.console_end import ConsoleEnd
from tests.harness.host_invariants import vmms
from tests.harness.supervisor_process import PATIENCE, Home, RunningSupervisor, sample, supervisor, until
from tests.harness.waiting import until as until_true
from tests.harness.waiting import until_log_says

ENDS = [
    (REBOOT, "reboot", "its guest rebooted, which ends a microVM", False),
    (PANIC, "panic", "its guest panicked: end=2", True),
    (TRIPLE_FAULT, "triple_fault", "its guest ended in a triple fault", True),
    (RESET, "reset", "its guest reset its machine, and its console does not say why", True),
]


async def ended(running: RunningSupervisor, end: int) -> Instance:
    """Make a guest that ends so, and return it once it has."""
    await running.client.create(
        CreateRequest(name="vm", image="pagewalker", cmd=("hot_mib=8", "passes=16", f"end={end}"), size="64MB")
    )
    await running.client.wait("vm", State.STOPPED, PATIENCE)
    return await running.client.instance("vm")


async def test_each_end_of_a_guest_is_told_by_its_name(home: Home) -> None:
    async with supervisor(home) as running:
        for end, reason, text, died in ENDS:
            one = await ended(running, end)
            assert (one.exit_reason, one.exit_message, one.died, one.exit_code) == (reason, text, died, 0)
            level = "ERROR" if died else "INFO"
            await until_log_says(running.log, f"{level} supervisor.host.host: vm: {text}\n")
            assert (await running.client.start("vm")).exit_reason is None
            await running.client.delete("vm")
        await running.client.create(CreateRequest(name="vm", image="pagewalker", cmd=("passes=0",), size="64MB"))
        assert (await running.client.stop("vm")).exit_reason == "stopped"


async def test_a_halted_guest_is_a_hint_of_its_console_and_its_vm_goes_on(home: Home) -> None:
    words = "reboot: System halted"
    async with supervisor(home) as running:
        client = running.client
        await client.create(
            CreateRequest(name="vm", image="pagewalker", cmd=("hot_mib=8", "passes=16", f"end={HALT}"), size="64MB")
        )
        host = await until(lambda host: bool(host.instances) and sample(host, "vm").last_words is not None, client)
        said = sample(host, "vm").last_words
        assert said is not None
        assert (said.says, said.line) == ("halt", words)
        await client.wait("vm", State.RUNNING, PATIENCE)
        assert (await client.instance("vm")).vmm_pid is not None, "what a guest prints changes no state"
        stopped = await client.stop("vm")
        assert (stopped.exit_reason, stopped.died) == ("stopped", False)


def test_last_words_are_those_of_this_boot_and_are_told_once_when_they_stand(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("login:\nreboot: System halted\r\n")
    earlier = ConsoleEnd(console, console.stat().st_size)
    earlier.look(10.0)
    assert earlier.last_words is None
    end = ConsoleEnd(console, 0)
    end.look(10.0)
    assert end.last_words == LastWords(says="halt", line="reboot: System halted")
    assert [end.to_tell(at) for at in (10.0, 12.9, 13.1, 14.0)] == [None, None, end.last_words, None]
    with console.open("a") as file:
        file.write("not at all\n")
    end.look(15.0)
    assert end.last_words is None
    console.unlink()
    end.look(16.0)


@pytest.mark.parametrize("end", [PANIC, TRIPLE_FAULT])
async def test_an_end_that_no_supervisor_saw_is_told_by_what_it_left(home: Home, end: int) -> None:
    async with supervisor(home) as running:
        await running.client.create(
            CreateRequest(name="vm", image="pagewalker", cmd=("hot_mib=8", "passes=64", f"end={end}"), size="64MB")
        )
        (log,) = (home.data / "instances").glob("*/vmm.log")
        await until_log_says(log, "Running ")
        await running.end(signal.SIGKILL)
    await until_true(lambda: not vmms(home))
    async with supervisor(home) as running:
        one = await running.client.instance("vm")
        told = {reason: text for number, reason, text, _ in ENDS if number == end}
        assert {one.exit_reason: one.exit_message} == told
        assert one.died
