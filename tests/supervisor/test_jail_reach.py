"""What a guest reaches that has taken its VMM over: as root as before jails, with a user of its own, and in a jail."""

import json
import os
import socket

import pytest

from supervisor.models import ForkRequest, Instance
from supervisor.settings import Settings
from tests.harness.jails import api_socket, jail_uid
from tests.harness.reach import ALLOWED, REFUSED, Attempts, reach, table
from tests.harness.supervisor_process import Home, RunningSupervisor, supervisor, until
from tests.harness.verified_guests import standby_source, until_verified

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="jails are made by root")

GID = Settings.model_fields["jail_uids"].default.partition("-")[0]
IN_REACH = frozenset({"connect to a port of the host", "connect to an abstract socket of the host"})
"""As long as no VM has a network of its own: Firecracker's own seccomp filter lets it make no such sockets."""


def attempts(home: Home, own: Instance, other: Instance, server: int, supervisor: int, port: int) -> Attempts:
    """Return what is tried with the identity of the VMM of `own`."""
    instances, source = home.data / "instances", str(own.source_id)
    layer = json.loads((instances / source / "instance.json").read_text())["snapshot"]["layers"][0]
    (control,) = home.run.glob("*.pages")
    return {
        "list the data directory": ("lists", home.data),
        "list other jails": ("lists", home.data / "jail" / "firecracker"),
        "read the memory that the forks share": ("reads", instances / source / layer),
        "write to the memory that the forks share": ("writes", instances / source / layer),
        "read another VM's record": ("reads", instances / other.id / "instance.json"),
        "read another VM's console": ("reads", instances / other.id / "console.log"),
        "read its own record": ("reads", instances / own.id / "instance.json"),
        "read another VM's page map": ("reads", home.run / "pages" / f"{other.id}.map"),
        "read the host's /etc/passwd": ("reads", "/etc/passwd"),
        "read the host's /etc/shadow": ("reads", "/etc/shadow"),
        "make a file in /tmp": ("makes", home.root.parent / f"made-by-{own.id}"),
        "connect to the supervisor": ("connects", home.socket),
        "connect to another VM's API": ("connects", api_socket(home, other.id)),
        "connect to the page server": ("connects", control),
        "connect to a port of the host": ("connects_by_tcp", port),
        "connect to an abstract socket of the host": ("connects", f"@{home.root}"),
        **{f"kill {name}": ("signals", pid) for name, pid in _others(other, server, supervisor).items()},
        **{f"trace {name}": ("traces", pid) for name, pid in _others(other, server, supervisor).items()},
        "read another VMM's memory": ("reads_memory", other.vmm_pid),
        "take a descriptor of another VMM": ("takes_descriptor", other.vmm_pid),
        "run a program of the host": ("executes", "/bin/true"),
        "make a device": ("makes_device", "/tmp/device"),
        "mount": ("mounts", "/mnt"),
    }


def _others(other: Instance, server: int, supervisor: int) -> dict[str, int]:
    assert other.vmm_pid is not None
    return {"another VMM": other.vmm_pid, "the page server": server, "the supervisor": supervisor}


async def forks(running: RunningSupervisor) -> tuple[Instance, Instance]:
    await standby_source(running.client, "source", "passes=0", "hot_mib=1")
    made = [
        await running.client.fork("source", ForkRequest(name=name, share_memory=True, target_state="Running"))
        for name in ("own", "other")
    ]
    await until_verified(running.client, "own", "other")
    return made[0], made[1]


async def test_a_jail_leaves_a_guest_that_broke_out_nothing_of_others(firecracker_home: Home) -> None:
    firecracker_home.options = ("--jail", "on")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0{firecracker_home.root}")
        abstract.listen()
        async with supervisor(firecracker_home) as running:
            own, other = await forks(running)
            host = await until(lambda host: True, running.client)
            server = host.templates[0].page_server_pid
            uid = jail_uid(firecracker_home, own.id)
            assert server is not None and uid is not None
            port = listener.getsockname()[1]
            tried = attempts(firecracker_home, own, other, server, host.supervisor.pid, port)
            found = {
                "before": await reach(tried),
                "a uid alone": await reach(tried, "another_user", uid),
                "in the jail": await reach(tried, "in_jail_of", own.vmm_pid, uid, GID),
            }
            print(f"\n{table(found)}")
            assert set(found["before"].values()) == {ALLOWED}
            assert {name for name, outcome in found["in the jail"].items() if outcome != REFUSED} == IN_REACH
            await until_verified(running.client, "own", "other")
            await running.client.delete("source", cascade=True)
