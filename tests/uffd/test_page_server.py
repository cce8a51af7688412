"""The page server as a process: it outlives its supervisor's connection, and its forks come and go."""

import asyncio
import errno
import os
import signal
import subprocess

import pytest

from supervisor.errors import PageServerError
from supervisor.system import followed_process
from supervisor.system.isolated_python import isolated_command
from supervisor.system.unix_sockets import connect
from supervisor.uffd import handle, page_server
from supervisor.uffd.handle import Gone, PageServer, PageServerEvent, Policy
from tests.harness.fork_in_miniature import TIMEOUT
from tests.harness.page_server_template import PAGES, Template

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_a_fork_that_dies_in_the_storm_leaves_the_others_served(template: Template) -> None:
    server = await template.serve(Policy(fault_around_pages=1))
    forks = [await template.fork(server, f"fork{number}") for number in range(3)]
    for number, fork in enumerate(forks):
        fork.tell("storm", 4, number)
    await forks[1].kill()
    gone = await template.event(lambda event: isinstance(event, Gone))
    assert isinstance(gone, Gone)
    assert gone.fork_id == "fork1"
    await forks[0].answer("0")
    await forks[2].answer("0")
    assert (await server.status()).forks == ("fork0", "fork2")
    assert (await template.counters("fork2")).present_pages == PAGES
    assert template.map("fork1").exists()
    await server.release("fork1")
    with pytest.raises(PageServerError, match="fork fork1 is not attached"):
        await server.served("fork1")


async def test_a_vmm_that_dies_before_its_handshake_is_told_at_once(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one", load=False)
    await fork.kill()
    with pytest.raises(PageServerError, match=f"its VMM, pid {fork.pid}, has exited"):
        await server.served("one")


async def test_a_fork_whose_vmm_has_gone_may_be_attached_again_with_another(template: Template) -> None:
    server = await template.serve()
    before = await template.fork(server, "one")
    await server.served("one")
    await before.kill()
    assert isinstance(await template.event(lambda event: isinstance(event, Gone)), Gone)
    after = await template.fork(server, "one")
    await server.served("one")
    await after.do("walk", 0, PAGES)
    assert (await server.status()).forks == ("one",)


async def test_it_outlives_its_supervisors_connection_and_is_found_again(template: Template) -> None:
    server = await template.serve()
    fork = await template.fork(server, "one")
    await server.served("one")
    fork.tell("storm", 2, 1)
    await server.disconnect()
    with pytest.raises(PageServerError, match="is not connected"):
        await server.status()
    await fork.answer("0")
    found: list[PageServerEvent] = []
    again = await PageServer.connect(
        template_id="template",
        control=template.control,
        pid=server.pid,
        start_time=server.start_time,
        on_event=found.append,
    )
    try:
        assert (await again.status()).forks == ("one",)
        other = await template.fork(again, "two")
        await again.served("two")
        await other.do("walk", 0, PAGES)
        with pytest.raises(PageServerError, match="attached already"):
            await template.fork(again, "two")
    finally:
        await again.stop()
    assert await again.exited == 0
    assert not template.control.exists()


async def test_connect_refuses_whom_it_was_not_told_of(template: Template) -> None:
    server = await template.serve()
    known = {"control": template.control, "on_event": template.events.append}
    with pytest.raises(PageServerError, match="another process has its pid"):
        await PageServer.connect(
            template_id="template",
            pid=server.pid,
            start_time=server.start_time - 1,
            **known,  # type: ignore[arg-type]
        )
    with pytest.raises(PageServerError, match="serves template template"):
        await PageServer.connect(
            template_id="other",
            pid=server.pid,
            start_time=server.start_time,
            **known,  # type: ignore[arg-type]
        )


async def test_sigterm_ends_it_cleanly_and_sigkill_is_told(template: Template) -> None:
    server = await template.serve(Policy(record_pages=10))
    fork = await template.fork(server, "one", record=True)
    await fork.do("walk", 0, 10)
    os.kill(server.pid, signal.SIGTERM)
    assert await asyncio.wait_for(server.exited, TIMEOUT) == 0
    assert template.hot_pages.exists()
    assert connect(template.control) == errno.ECONNREFUSED
    again = await template.serve()
    await template.fork(again, "two", load=False)
    waiting = asyncio.create_task(again.served("two"))
    await again.status()
    os.kill(again.pid, signal.SIGKILL)
    with pytest.raises(PageServerError, match=r"has exited with -9|has closed its control connection"):
        await waiting
    assert await asyncio.wait_for(again.exited, TIMEOUT) == -signal.SIGKILL
    # What the dead one left is no obstacle.
    assert template.control.exists()
    await template.serve()


async def test_one_that_does_not_end_is_told_and_not_waited_for(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits in the kernel for a disk."""
    server = await template.serve()
    os.kill(server.pid, signal.SIGSTOP)
    with monkeypatch.context() as hung:
        hung.setattr(followed_process, "kill", lambda _: None)
        hung.setattr(followed_process, "KILL_TIMEOUT", 0.1)
        hung.setattr(handle, "_STOP_SECONDS", 0.1)
        async with asyncio.timeout(TIMEOUT):
            with pytest.raises(PageServerError, match=rf"template: pid {server.pid} has not ended .* after SIGKILL"):
                await server.stop()
    await server.stop()
    assert server.exited.result() == -signal.SIGKILL


def test_what_a_request_says_forges_no_line_of_its_log(capfd: pytest.CaptureFixture[str]) -> None:
    page_server.log("fork x\n2026-01-01T00:00:00 forged\x1b[2J\x85\u2028\u202e\udc80")
    page_server.log("y" * (1 << 20))
    text = capfd.readouterr().err
    assert len(text.splitlines()) == 2
    assert text.replace("\n", "").isprintable()
    assert len(text) < 10_000


def test_one_that_is_refused_says_so_in_one_line() -> None:
    command = isolated_command("from supervisor.uffd.page_server import main; sys.exit(main())")
    configuration = '{"layers": "\\ud800\\n\\u001b"}'
    ended = subprocess.run((*command, configuration), capture_output=True, timeout=TIMEOUT)
    assert ended.returncode == 1
    assert ended.stdout.decode().startswith("refused: ")
    assert (ended.stdout.count(b"\n"), ended.stderr.count(b"\n")) == (1, 1)
    assert b"\x1b" not in ended.stdout + ended.stderr
