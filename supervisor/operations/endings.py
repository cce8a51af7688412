"""How a VM has ended: what its VMM's process, its log and its guest's console say, and whether memory ran out."""

import asyncio
import signal
from typing import NamedTuple

from supervisor.consoles.last_lines import last_lines
from supervisor.models import ExitReason
from supervisor.rules.endings import ending
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord
from supervisor.system.oom_kills import out_of_memory
from supervisor.vmm.logs import messages
from supervisor.vmm.process import Exit


class Explained(NamedTuple):
    """Why a VM ended, in words as well."""

    reason: ExitReason
    text: str
    told: str
    """The same behind the instance's name."""
    died: bool


async def explained(layout: Layout, record: InstanceRecord, exit_status: Exit) -> Explained:
    """Return why the VM of an instance has ended whose VMM ended so."""
    log, console = await asyncio.to_thread(
        lambda: (
            messages(layout.instance(record.id)),
            last_lines(layout.console_log(record.id), record.console_offset),
        )
    )
    why = ending(exit_status.code, exit_status.signal, log, console)
    if why.text is not None:
        return Explained(why.reason, why.text, why.text, why.died)
    text, reason = exit_status.text, why.reason
    if reason == "unknown" or exit_status.signal == signal.SIGKILL:
        # Of an adopted one no signal is known.
        found = await _out_of_memory(record)
        text, reason = (text, reason) if found is None else (f"{text}: {found}", "out_of_memory")
    return Explained(reason, text, f"its VMM ended: {text}", why.died)


async def _out_of_memory(record: InstanceRecord) -> str | None:
    if record.process is None:
        return None
    return await asyncio.to_thread(out_of_memory, record.process.pid, record.process.start_time)
