"""With --read-only nothing is changed: by no command, and by no key, whatever the supervisor lets this user do."""

import pytest

from forktui.actions.guards import forbidden
from forktui.client.api import ApiError, SupervisorClient
from forktui.tui.app import ForkTui
from supervisor.models import FanOutRequest, State
from tests.cli.conftest import Forktui
from tests.harness.pilot import tree, until, until_shown
from tests.harness.programs import DONE, FAILED, USAGE
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.told_hosts import SUPERVISOR
from tests.harness.verified_guests import standby_source


@pytest.mark.parametrize("by", ["option", "variable"])
async def test_commands_read_and_change_nothing(
    embedded: Home, forktui: Forktui, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--socket", str(embedded.socket), *(("--read-only",) if by == "option" else ()))
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        if by == "variable":
            monkeypatch.setenv("FORKTUI_READ_ONLY", "1")
        code, out, _ = await forktui("ls", *options)
        assert (code, "source" in out) == (DONE, True)
        assert (await forktui("delete", "source", "--cascade", "--dry-run", *options))[0] == DONE
        assert (await forktui("fan-out", "source", "2", "--dry-run", *options))[0] == DONE
        for verb in (("delete", "source"), ("fork", "source"), ("fan-out", "source", "2"), ("restore", "source")):
            code, _, error = await forktui(*verb, *options)
            assert code == FAILED
            assert "refused: this would change something, and --read-only (FORKTUI_READ_ONLY) is set" in error
        (left,) = await running.client.instances()
        assert (left.name, left.state) == ("source", State.STANDBY)


async def test_a_client_that_only_reads_sends_nothing_else(embedded: Home) -> None:
    async with supervisor(embedded) as running, SupervisorClient(embedded.socket, read_only=True) as reader:
        await standby_source(running.client)
        assert (await reader.fan_out_estimate("source", FanOutRequest(count=2))).fits > 0
        for verb in (reader.start, reader.stop, reader.standby, reader.detach, reader.accept, reader.delete):
            with pytest.raises(ApiError, match="--read-only"):
                await verb("source")


async def test_the_dashboard_says_so_and_refuses_every_key(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        app = ForkTui(SupervisorClient(embedded.socket, read_only=True))
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            await until(pilot, lambda: tree(pilot).rows)
            await until_shown(pilot, "READ-ONLY  --read-only")
            await pilot.press("f")
            await until_shown(pilot, "Fork refused: read-only; forktui was started so")


async def test_the_demo_refuses_it(forktui: Forktui) -> None:
    code, _, error = await forktui("--read-only", "demo", "--headless")
    assert (code, "the demo has a host of its own; leave it out" in error) == (USAGE, True)


def test_what_forbids_everything_says_what_would_allow_it() -> None:
    barred = SUPERVISOR.model_copy(update={"writable": False})
    assert forbidden(SUPERVISOR, live=True, read_only=False) is None
    assert "not connected" in (forbidden(SUPERVISOR, live=False, read_only=False) or "")
    assert "not connected" in (forbidden(None, live=True, read_only=False) or "")
    assert "without --read-only" in (forbidden(barred, live=True, read_only=True) or "")
    assert "its own user, root and its group" in (forbidden(barred, live=True, read_only=False) or "")
