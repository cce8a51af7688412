"""A supervisor that is asked to end does so, whatever holds it up."""

import asyncio
import signal
import sys

import pytest

from tests.harness.supervisor_process import PATIENCE

HELD_UP = """
import asyncio, logging, sys, threading
from supervisor.daemon.ending import Ending

async def main():
    logging.basicConfig()
    ending = Ending()
    print("ready", flush=True)
    if sys.argv[1] == "log":
        logging.getLogger().handlers[0].acquire()
        while True:
            pass
    if sys.argv[1] == "loop":
        while True:
            pass
    if sys.argv[1] == "thread":
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    await ending.asked()
    print("asked", flush=True)
    if sys.argv[1] == "task":
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("what", ["loop", "thread", "task", "log"])
async def test_an_end_is_bounded_whatever_hangs(what: str, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HELD_UP, what, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, output) == (0, b"" if what in ("loop", "log") else b"asked\n")
    assert (b"the next supervisor sees to the rest" in errors) is (what != "log")
