"""`forktui-supervisor`: what keeps it from starting, and what it leaves running when it ends."""

import signal
import socket
import subprocess
from pathlib import Path

import psutil

from supervisor.models import CreateRequest
from tests.harness.programs import DONE, FAILED, complaint, program
from tests.harness.supervisor_process import PATIENCE, Home, supervisor


def test_a_supervisor_without_the_firecracker_it_must_have_is_refused(
    environment: dict[str, str], run_dir: Path
) -> None:
    missing = run_dir / "no-firecracker"
    line = complaint(
        program("supervisor", environment, "--hypervisor", "firecracker", "--firecracker", str(missing)), FAILED
    )
    assert str(missing) in line
    assert list(run_dir.iterdir()) == []


async def test_a_data_directory_that_another_supervisor_holds(embedded: Home, environment: dict[str, str]) -> None:
    async with supervisor(embedded) as running:
        line = complaint(program("supervisor", environment, "--run-dir", str(embedded.root / "other")), FAILED)
        assert f"another supervisor (pid {running.process.pid}) holds {embedded.data}" in line
        assert not (embedded.root / "other").exists()


async def test_a_socket_that_another_supervisor_holds(embedded: Home, environment: dict[str, str]) -> None:
    async with supervisor(embedded) as running:
        other = ("--data-dir", str(embedded.root / "other"), "--run-dir", str(embedded.root / "o"))
        line = complaint(program("supervisor", environment, *other, "--socket", str(embedded.socket)), FAILED)
        assert f"another supervisor listens on {embedded.socket}" in line
        assert not (embedded.root / "other").exists()
        await running.client.health()


def test_a_socket_that_nobody_listens_on_any_more_is_taken_over(embedded: Home, environment: dict[str, str]) -> None:
    embedded.run.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(embedded.socket))
    process = subprocess.Popen(embedded.command(), env=environment, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().decode() == f"ready {embedded.socket}\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == DONE
    assert not embedded.socket.exists()


def test_something_else_where_the_socket_should_be(environment: dict[str, str], run_dir: Path) -> None:
    (run_dir / "run").mkdir()
    (run_dir / "run" / "supervisor.sock").write_text("mine")
    line = complaint(program("supervisor", environment, "--hypervisor", "embedded"), FAILED)
    assert "supervisor.sock exists and is not a socket" in line
    assert (run_dir / "run" / "supervisor.sock").read_text() == "mine"
    assert not (run_dir / "data").exists()


async def test_vms_go_on_without_their_supervisor(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await running.client.create(CreateRequest(name="x", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        pid = (await running.client.instance("x")).vmm_pid
    assert pid is not None
    vmm = psutil.Process(pid)
    assert vmm.status() != psutil.STATUS_ZOMBIE
    assert not embedded.socket.exists()
    async with supervisor(embedded) as running:
        again = await running.client.instance("x")
        assert again.vmm_pid == pid
        await running.client.delete("x")
    # Its parent, which has to reap it, is gone; it is the init process's to do so, some time.
    assert not vmm.is_running() or vmm.status() == psutil.STATUS_ZOMBIE
