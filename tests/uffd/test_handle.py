"""The handle of a page server, against a peer that times its answers as no real page server can be made to."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from supervisor.system.control_lines import encode
from supervisor.system.processes import start_time_of
from supervisor.uffd.control import Gone, Status, encode_event
from supervisor.uffd.handle import PageServer, PageServerEvent

STATUS = Status("template", os.getpid(), (), (), os.sysconf("SC_PAGE_SIZE"), 0, 0, "", 0, 0, 0, 5.0)


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(run_dir: Path) -> None:
    """A watch that went on after its cancellation would hang the end of the supervisor."""
    control = run_dir / "control"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request = json.loads(line)
            result = encode({"id": request["id"], "result": STATUS._asdict() if request["verb"] == "status" else None})
            event = encode_event(Gone("fork", "exited")) if request["verb"] == "ping" else b""
            writer.write(result + event)

    def on_event(event: PageServerEvent) -> None:
        asking.cancel()

    async with await asyncio.start_unix_server(answer, control):
        server = await PageServer.connect(
            template_id="template",
            control=control,
            pid=os.getpid(),
            start_time=start_time_of(os.getpid()),
            on_event=on_event,
        )
        try:
            asking = asyncio.create_task(server.ping(seconds=30))
            with pytest.raises(asyncio.CancelledError):
                await asking
        finally:
            await server.disconnect()
