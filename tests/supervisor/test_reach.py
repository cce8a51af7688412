"""What a page server reaches of a host: as root, as a user of its own, and confined; and that those that run are."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import ForkRequest, HostSnapshot
from supervisor.system import landlock
from tests.harness.reach import ALLOWED, REFUSED, Attempts, reach, table
from tests.harness.supervisor_process import Home, supervisor, until
from tests.harness.verified_guests import standby_source, two_more_passes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="page servers are confined by root alone")

BOTH: Final = (ALLOWED, ALLOWED, REFUSED)
NEITHER: Final = (ALLOWED, REFUSED, REFUSED)
REACHED: Final = {
    "write in its own directory": (ALLOWED, ALLOWED, ALLOWED),
    "make a device there": NEITHER,
    "read another fork's page map": NEITHER,
    "write to another fork's page map": NEITHER,
    "read its template's memory by its path": NEITHER,
    "read another instance's record": NEITHER,
    "read a snapshot's state-file": NEITHER,
    "list the data directory": NEITHER,
    "list the run directory": NEITHER,
    "read /etc/shadow": NEITHER,
    "read /etc/passwd": BOTH,
    "connect to the supervisor": NEITHER,
    "connect to another page server": NEITHER,
    "connect to an abstract socket": BOTH,
    "connect by TCP": BOTH,
    "signal the supervisor": NEITHER,
    "signal a VMM": NEITHER,
    "signal another page server": NEITHER,
    "signal another process of its user": BOTH,
    "the same by a pidfd": BOTH,
    "trace the supervisor": NEITHER,
    "trace a VMM": NEITHER,
    "trace another page server": NEITHER,
    "take a descriptor out of a VMM": NEITHER,
    "read the memory of a VMM": NEITHER,
    "run a program": BOTH,
    "mount a file system": NEITHER,
}
"""By what is tried what comes of it: as root, as another user without capabilities, and as a page server."""


@dataclass
class Hosted:
    """Two templates, each with a fork that is served."""

    home: Home
    client: SupervisorClient
    host: HostSnapshot
    supervisor_pid: int

    def record(self, template: str) -> dict[str, object]:
        """Return the record of a template."""
        record: dict[str, object] = json.loads((self.home.data / "templates" / template / "template.json").read_text())
        return record


async def served(client: SupervisorClient, *names: str) -> HostSnapshot:
    """Make sources, and a fork of each whose pages come from its page server."""
    for name in names:
        await standby_source(client, name, "passes=0", "hot_mib=2")
        await client.fork(name, ForkRequest(name=f"{name}-fork", share_memory=True, target_state="Running"))
        await two_more_passes(client, f"{name}-fork")
    return await until(lambda host: sum(bool(one.page_server_pid) for one in host.templates) == len(names), client)


def attempts(hosted: Hosted, own: Path, port: int, abstract: str) -> Attempts:
    """Return what the page server of the first template tries."""
    home, host = hosted.home, hosted.host
    ours, other = host.templates
    fork = next(one for one in host.instances if one.name == "two-fork")
    source = next(one for one in host.instances if one.name == "two")
    page_map, instance = home.run / "pages" / f"{fork.id}.map", home.data / "instances" / source.id
    layer = next((home.data / "templates" / ours.id).glob("mem.*"))
    tried: dict[str, tuple[str, object]] = {
        "write in its own directory": ("makes", own / "own"),
        "make a device there": ("makes_device", own / "device"),
        "read another fork's page map": ("reads", page_map),
        "write to another fork's page map": ("writes", page_map),
        "read its template's memory by its path": ("reads", layer),
        "read another instance's record": ("reads", instance / "instance.json"),
        "read a snapshot's state-file": ("reads", instance / "state.0"),
        "list the data directory": ("lists", home.data),
        "list the run directory": ("lists", home.run),
        "read /etc/shadow": ("reads", "/etc/shadow"),
        "read /etc/passwd": ("reads", "/etc/passwd"),
        "connect to the supervisor": ("connects", home.socket),
        "connect to another page server": ("connects", home.run / f"{other.id}.pages"),
        "connect to an abstract socket": ("connects", f"@{abstract}"),
        "connect by TCP": ("connects_by_tcp", port),
        "signal the supervisor": ("signals", hosted.supervisor_pid),
        "signal a VMM": ("signals", fork.vmm_pid),
        "signal another page server": ("signals", other.page_server_pid),
        "signal another process of its user": ("signals", ours.page_server_pid),
        "the same by a pidfd": ("signals_by_pidfd", ours.page_server_pid),
        "trace the supervisor": ("traces", hosted.supervisor_pid),
        "trace a VMM": ("traces", fork.vmm_pid),
        "trace another page server": ("traces", other.page_server_pid),
        "take a descriptor out of a VMM": ("takes_descriptor", fork.vmm_pid),
        "read the memory of a VMM": ("reads_memory", fork.vmm_pid),
        "run a program": ("executes", "/bin/true"),
        "mount a file system": ("mounts", own),
    }
    return tried


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Yield the port of a TCP socket, and the name of an abstract one, that somebody listens at."""
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        name = f"reach-{tmp_path.name}-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield tcp.getsockname()[1], name


@pytest.mark.skipif(landlock.abi() < 6, reason="this kernel's Landlock knows neither abstract sockets nor signals")
async def test_a_page_server_reaches_its_own_directory_and_nothing_else(
    home: Home, userfaultfd: None, listening: tuple[int, str]
) -> None:
    async with supervisor(home) as running:
        hosted = Hosted(home, running.client, await served(running.client, "one", "two"), running.process.pid)
        template = hosted.host.templates[0].id
        uid, own = hosted.record(template)["page_server_uid"], home.data / "templates" / template / "recorded"
        tried = attempts(hosted, own, *listening)
        columns = {
            "before (root)": await reach(tried),
            "a uid alone": await reach(tried, "another_user", uid),
            "confined": await reach(tried, "confined", uid, own),
        }
        print(table(columns))
        assert {name: tuple(column[name] for column in columns.values()) for name in tried} == REACHED | {
            # By its path nobody but root comes there: what it works in was handed to it.
            "write in its own directory": (ALLOWED, REFUSED, REFUSED)
        }
        await two_more_passes(running.client, "one-fork", "two-fork")


async def test_each_templates_page_servers_are_a_user_of_their_own_that_their_record_names(
    home: Home, userfaultfd: None
) -> None:
    async with supervisor(home) as running:
        client = running.client
        host = await served(client, "one", "two")
        hosted = Hosted(home, client, host, running.process.pid)
        uids = {one.id: hosted.record(one.id)["page_server_uid"] for one in host.templates}
        assert len(set(uids.values())) == 2
        for one in host.templates:
            assert_confined(one.page_server_pid, uids[one.id])
        first = host.templates[0]
        assert first.page_server_pid is not None
        psutil.Process(first.page_server_pid).kill()
        host = await until(
            lambda host: any(t.page_server_restarts and t.page_server_pid for t in host.templates), client
        )
        again = next(one for one in host.templates if one.id == first.id)
        assert_confined(again.page_server_pid, uids[first.id])
        await two_more_passes(client, "one-fork", "two-fork")


async def test_where_jails_are_off_page_servers_are_the_supervisors_users(home: Home, userfaultfd: None) -> None:
    home.options = ("--jail", "off")
    async with supervisor(home) as running:
        (template,) = (await served(running.client, "one")).templates
        status = process_status(template.page_server_pid)
        assert (status["Uid"].split(), status["Seccomp"]) == (["0"] * 4, "0")
        await running.end()
    home.options = ()
    async with supervisor(home) as running:
        # It runs on as it is, and the next is confined.
        host = await until(lambda host: bool(host.templates[0].page_server_pid), running.client)
        assert host.templates[0].page_server_pid == template.page_server_pid
        assert template.page_server_pid is not None
        psutil.Process(template.page_server_pid).kill()
        host = await until(
            lambda host: bool(host.templates[0].page_server_restarts and host.templates[0].page_server_pid),
            running.client,
        )
        hosted = Hosted(home, running.client, host, running.process.pid)
        assert_confined(host.templates[0].page_server_pid, hosted.record(template.id)["page_server_uid"])
        await two_more_passes(running.client, "one-fork")


def assert_confined(pid: int | None, uid: object) -> None:
    status = process_status(pid)
    assert (status["Uid"].split(), status["Gid"].split()) == ([str(uid)] * 4, [str(uid)] * 4)
    assert status["Groups"] == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def process_status(pid: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
