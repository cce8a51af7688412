"""A supervisor that is not root's: it tries no half of a jail, works as it does without, and says what lacks."""

import os

import pytest

from supervisor.models import FanOutRequest, ForkRequest
from supervisor.system.processes import status_field
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.verified_guests import standby_source, until_verified

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

NOBODY = 65534
LACKING = "the supervisor does not run as root: start it as root"
LAUNCHER = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    # Which leaves it /dev/kvm and /dev/userfaultfd, as a group or an ACL would, for access(2) too.
    "--securebits=+no_setuid_fixup",
    *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override"),
)


@pytest.fixture
def anothers(firecracker_home: Home) -> Home:
    """Return a home whose supervisor is another user's."""
    os.chown(firecracker_home.root, NOBODY, NOBODY)
    firecracker_home.launcher, firecracker_home.user = LAUNCHER, NOBODY
    return firecracker_home


async def test_another_users_forks_run_without_jails_and_that_is_said(anothers: Home) -> None:
    async with supervisor(anothers) as running:
        client = running.client
        await standby_source(client, "source")
        await client.fan_out("source", FanOutRequest(count=3, name_prefix="vm"))
        await until_verified(client, "vm-1", "vm-2", "vm-3")
        host = await client.snapshot()
        jails = host.supervisor.jails
        assert jails is not None
        assert (jails.mode, jails.jailed, jails.problem, jails.page_servers) == ("auto", False, LACKING, ())
        assert (await client.capabilities())["jails"] == jails.model_dump(mode="json")
        assert {one.jail_uid for one in host.instances} == {None}
        pids = [*(one.vmm_pid for one in host.instances if one.vmm_pid), host.templates[0].page_server_pid]
        assert {status_field(pid or 0, "Uid") for pid in pids} == {f"{NOBODY}\t" * 3 + f"{NOBODY}"}
        assert not (anothers.data / "jail").exists()
        assert f"VMs run without jails: {LACKING}" in running.log.read_text()
        await client.delete("source", cascade=True)


async def test_where_jails_have_to_be_nothing_of_another_user_starts(anothers: Home) -> None:
    async with supervisor(anothers) as running:
        await standby_source(running.client, "source")
    anothers.options = ("--jail", "on")
    async with supervisor(anothers) as running:
        fork = ForkRequest(name="fork", share_memory=True, target_state="Running")
        for verb in (running.client.fork("source", fork), running.client.restore("source")):
            error = await refused(verb)
            assert error.code == "dependency_missing"
            assert (
                f"it is to run in a jail and cannot: {LACKING}; or start the supervisor with --jail auto"
                in error.message
            )
        assert [one.name for one in await running.client.instances()] == ["source"]
        assert f"no VM starts: each is to run in a jail, and cannot: {LACKING}" in running.log.read_text()
