"""The verbs of a real supervisor's API: through hypeman's SDK unchanged, and through our client."""

import asyncio

import httpx
import hypeman
import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest, State
from tests.api.conftest import Served
from tests.harness.supervisor_process import PATIENCE


class Counting(httpx.HTTPTransport):
    """A transport that counts its requests."""

    requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return super().handle_request(request)


def test_hypemans_sdk_drives_the_main_job_unchanged(served: Served, http: httpx.Client) -> None:
    """Create, standby, share_memory fork, a refused restore asked once, wait, logs, stats, delete."""
    transport = Counting(uds=str(served.socket))
    sdk = hypeman.Hypeman(api_key="x", base_url="http://localhost", http_client=httpx.Client(transport=transport))
    assert sdk.health.check().status == "ok"
    assert sdk.capabilities.get().default_runtime.name == "embedded"

    source = sdk.instances.create(name="sdk-source", image="pagewalker", size="128MB", vcpus=1, env={"A": "b"})
    assert (source.name, source.image, source.vcpus) == ("sdk-source", "pagewalker", 1)
    assert sdk.instances.wait("sdk-source", state="Running", api_timeout="30s").state == "Running"
    assert [one.id for one in sdk.instances.list()] == [source.id]
    assert sdk.instances.list(state="Stopped") == []
    assert sdk.instances.get(source.id[:8]).id == source.id
    assert sdk.instances.standby("sdk-source").state == "Standby"

    fork = sdk.instances.fork("sdk-source", name="sdk-fork", target_state="Running", extra_body={"share_memory": True})
    assert fork.state == "Running"
    locked = sdk.instances.get("sdk-source")
    assert locked.model_extra is not None
    assert (locked.model_extra["fork_count"], locked.model_extra["mem_locked"]) == (1, True)
    assert locked.model_extra["locked_by"] == ["sdk-fork"]
    for verb in (sdk.instances.restore, sdk.instances.start, sdk.instances.delete):
        before = transport.requests
        with pytest.raises(hypeman.ConflictError, match="sdk-fork") as refusal:
            verb("sdk-source")
        assert transport.requests == before + 1, "the SDK repeated a refused request"
        assert refusal.value.response.json()["code"] == "invalid_state"
    with pytest.raises(hypeman.ConflictError) as taken:
        sdk.instances.fork("sdk-source", name="sdk-fork", extra_body={"share_memory": True})
    assert taken.value.response.json()["code"] == "name_conflict"

    with sdk.instances.logs("sdk-fork", follow=True) as lines:
        assert next(line for line in lines if line.startswith("pass")) == "pass 1"
    assert "restored" in list(sdk.instances.logs("sdk-fork"))
    stats = sdk.instances.stats("sdk-fork")
    assert (stats.instance_id, stats.allocated_memory_bytes) == (fork.id, 128 << 20)

    sdk.instances.delete("sdk-fork")
    assert sdk.instances.restore("sdk-source").state == "Running"
    assert sdk.instances.stop("sdk-source").state == "Stopped"
    assert sdk.instances.start("sdk-source").state in ("Initializing", "Running")
    sdk.instances.delete("sdk-source")
    with pytest.raises(hypeman.NotFoundError):
        sdk.instances.get(source.id)
    assert sdk.instances.list() == []


async def test_our_client_knows_every_verb(client: SupervisorClient) -> None:
    """What the dashboard needs beyond hypeman's: fan-out, lineage, the page map."""
    await client.health()
    assert set(await client.capabilities()) >= {"default_runtime", "features", "host", "images", "runtimes", "server"}
    source = await client.create(CreateRequest(name="source", image="pagewalker"))
    assert (await client.wait("source", State.RUNNING, PATIENCE)).timed_out is False
    assert (await client.standby("source")).state is State.STANDBY
    result = await client.fan_out("source", FanOutRequest(count=3, target_state=State.RUNNING))
    forks = [child.instance for child in result.children if child.instance]
    assert [fork.name for fork in forks] == ["source-1", "source-2", "source-3"]
    assert result.milliseconds > 0
    listed = {one.name: one for one in await client.instances()}
    assert (listed["source"].fork_count, listed["source"].mem_locked) == (3, True)
    assert [one.name for one in await client.instances(State.STANDBY)] == ["source"]
    lineage = await client.lineage(forks[0].id)
    assert (lineage.ancestors, lineage.tree.name) == ((source.id,), "source-1")
    below = (await client.lineage("source")).tree.children
    assert sorted(child.name for child in below) == ["source-1", "source-2", "source-3"]
    fold = await client.memory("source-1", 10)
    assert len(fold.cells) == 10
    assert sum(map(sum, fold.cells)) == fold.pages == (128 << 20) // fold.page_size
    # Under way while it was read: each is counted in one word after the other.
    assert len(fold.latency_counts) == len(fold.latency_bounds_us) + 1
    assert fold.latency_bounds_us[:3] == (1, 2, 4)
    assert sum(fold.latency_counts) > 0 < fold.fault_ms
    machines = [await client.machine(name) for name in ("source", "source-1")]
    (base,), (shared,) = (machine.layers for machine in machines)
    assert (base.bytes, base.names) == (128 << 20, shared.names) and 0 < base.disk_bytes < base.bytes
    # The source's, the template's and each fork's.
    assert base.names == 5
    assert machines[1].directory.endswith(forks[0].id)
    assert (await client.stats("source-1")).instance_name == "source-1"
    assert isinstance(await client.logs("source", 5), list)
    for fork in forks:
        await client.delete(fork.id)
    assert (await client.instance("source")).mem_locked is False
    assert (await client.restore("source")).state is State.RUNNING
    assert (await client.stop("source")).state is State.STOPPED
    await client.start("source")


async def test_a_fork_without_a_body_takes_defaults(client: SupervisorClient, http: httpx.Client) -> None:
    """hypeman demands a name; here it may be left to the supervisor, and with it the whole body."""
    await client.create(CreateRequest(name="plain", image="pagewalker"))
    await client.wait("plain", State.RUNNING, PATIENCE)
    await client.stop("plain")
    answer = await asyncio.to_thread(http.post, "/instances/plain/fork")
    assert (answer.status_code, answer.json()["name"], answer.json()["state"]) == (201, "plain-1", "Stopped")
    second = await client.fork("plain", ForkRequest())
    assert second.name == "plain-2"


async def test_a_wait_is_answered_before_its_client_stops_reading(client: SupervisorClient, http: httpx.Client) -> None:
    """hypeman's SDK says how long it reads; the wait takes less, however long it was asked to be."""
    await client.create(CreateRequest(name="waited", image="pagewalker"))
    answer = await asyncio.to_thread(
        http.get,
        "/instances/waited/wait",
        params={"state": "Standby", "timeout": "1h"},
        headers={"X-Stainless-Read-Timeout": "0.6"},
        timeout=PATIENCE,
    )
    assert answer.json()["timed_out"] is True
    assert 0.4 < answer.elapsed.total_seconds() < PATIENCE / 2
    result = await client.wait("waited", State.STANDBY, 0.2)
    assert result.timed_out
