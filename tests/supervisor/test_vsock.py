"""A vsock device, whose socket a VMM that was killed leaves in the instance's directory."""

import asyncio
import socket

from supervisor.models import CreateRequest, ForkRequest, State
from tests.harness.pagewalker_images import write_image
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.waiting import until_console_says

VSOCK = {"vsock": {"guest_cid": 3, "uds_path": "v.sock"}}


async def test_a_vm_with_a_vsock_device_runs_again_and_again_and_its_forks_too(firecracker_home: Home) -> None:
    write_image(firecracker_home.data / "images" / "talking", VSOCK)
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="talking"))
        directory = firecracker_home.data / "instances" / source.id
        await until_console_says(directory / "console.log", "pass 1")
        assert (directory / "v.sock").is_socket()
        await client.stop("source")
        await client.start("source")
        for _ in range(2):
            await client.standby("source")
            await client.restore("source")
        await client.standby("source")
        fork = await client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        await client.standby(fork.id)
        # The operator's own program, which the guest may call at port 52: it is not the VMM's and not dead.
        listens = socket.socket(socket.AF_UNIX)
        try:
            path = firecracker_home.data / "instances" / fork.id / "v.sock_52"
            listens.bind(str(path))
            listens.listen()
            assert (await client.restore(fork.id)).state is State.RUNNING
            assert await asyncio.to_thread(path.is_socket)
        finally:
            listens.close()
        await client.delete(fork.id)
        await client.delete("source")
