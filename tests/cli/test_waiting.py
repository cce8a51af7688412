"""`--wait`: commands that end when what they made is ready."""

import json

import pytest

from supervisor.models import Instance
from tests.cli.conftest import Forktui
from tests.harness.programs import DONE, FAILED, USAGE
from tests.harness.supervisor_process import Home, supervisor

WALKS = ("--size", "64MB", "--cmd", "hot_mib=2", "passes=0")


async def test_what_is_made_is_waited_for_until_it_is_ready(home: Home, forktui: Forktui) -> None:
    async with supervisor(home) as running:
        code, output, errors = await forktui(
            "create", "web", "--wait", "--readiness", "console:^pass 2$", "--json", *WALKS
        )
        assert (code, errors) == (DONE, "")
        made = Instance.model_validate_json(output)
        assert made.ready_at is not None and made.readiness == "console:^pass 2$"
        assert (await forktui("create", "plain", "--wait", *WALKS)) == (DONE, "plain Running\n", "")
        assert (await forktui("standby", "web"))[0] == DONE
        wait = ("--wait", "--readiness", "console:restored")
        assert (await forktui("fork", "web", "--name", "one", *wait)) == (DONE, "one Running\n", "")
        code, output, errors = await forktui("fan-out", "web", "2", *wait)
        assert (code, errors) == (DONE, "")
        assert output.splitlines()[:2] == ["web-1 Running", "web-2 Running"]
        assert output.splitlines()[2].startswith("2 forks: Running p50 ")
        assert "; ready p50 " in output.splitlines()[2]
        told = json.loads((await forktui("fan-out", "web", "2", "--json", *wait))[1])
        assert all(child["instance"]["ready_at"] for child in told["children"])
        assert 0 < told["percentiles_ms"]["Running"]["p50"] < told["percentiles_ms"]["ready"]["p95"]
        assert (await forktui("fork", "web", "--wait", "--target-state", "Standby"))[0] == DONE
        for name in ("web", "plain"):
            await running.client.delete(name, cascade=True)


async def test_what_is_there_is_waited_for_by_its_readiness_another_or_a_state(home: Home, forktui: Forktui) -> None:
    async with supervisor(home) as running:
        assert (await forktui("create", "web", "--readiness", "console:^pass 2$", *WALKS))[0] == DONE
        assert await forktui("wait", "web") == (DONE, "web Running\n", "")
        assert await forktui("wait", "web", "--readiness", "console:^pass 3$") == (DONE, "web Running\n", "")
        code, output, errors = await forktui("wait", "web", "--state", "Standby", "--timeout", "0.2")
        assert (code, output, errors) == (
            FAILED,
            "web Running\n",
            "forktui: web: not Standby after 0.2 s: it is Running\n",
        )
        assert (await forktui("create", "other", *WALKS))[0] == DONE
        assert (await forktui("wait", "other"))[0] == DONE
        assert (await forktui("standby", "other"))[0] == DONE
        both = await forktui("wait", "web", "other", "--timeout", "0.2", "--json")
        assert both[0] == FAILED and both[2] == "forktui: other: it is Standby, and its guest does not run\n"
        assert [one["name"] for one in json.loads(both[1])] == ["web", "other"]
        assert await forktui("wait", "other", "--state", "Standby") == (DONE, "other Standby\n", "")
        assert (await forktui("wait", "nobody"))[0] == FAILED
        for name in ("web", "other"):
            await running.client.delete(name)


async def test_what_does_not_become_ready_is_told_and_stays(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        never = ("--wait", "--timeout", "0.3", "--readiness", "console:never")
        code, output, errors = await forktui("create", "web", *never, *WALKS)
        assert code == FAILED and output.startswith("web ")
        assert errors.strip() == "forktui: web: not ready after 0.3 s: waits for console:never"
        await running.client.delete("web")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--timeout", "5"), "--timeout: nothing is waited for; give --wait as well"),
        (("--readiness", "soon"), "readiness: 'soon' is refused: a readiness is console:PATTERN"),
        (("--readiness", "console:(a"), "there is a ( without its )"),
    ],
)
async def test_what_cannot_be_waited_for_is_a_usage_error(
    forktui: Forktui, options: tuple[str, ...], told: str
) -> None:
    code, output, errors = await forktui("create", "web", *options)
    assert (code, output) == (USAGE, "") and told in errors


async def test_a_guest_of_a_vm_that_rests_is_not_waited_for(forktui: Forktui) -> None:
    code, output, errors = await forktui("wait", "web", "--state", "Standby", "--readiness", "console:up")
    assert (code, output) == (USAGE, "") and "where its VM is Running only" in errors
