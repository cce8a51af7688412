"""Guests of a supervisor that verify their memory as they walk it: none may ever have read a wrong byte."""

from forktui.client.api import SupervisorClient
from supervisor.models import Guest, HostSnapshot, Instance
from tests.harness.supervisor_process import guest, until, walking_source


async def standby_source(client: SupervisorClient, name: str = "source", *words: str) -> Instance:
    """Create a pagewalker that walks its memory, put it to standby, and return it."""
    source = await walking_source(client, name, *words)
    return await client.standby(source.id)


def verified(host: HostSnapshot, *names: str) -> bool:
    """Return whether these guests have noticed their restore and walked since."""
    return all(one.restored and one.passes >= 1 for one in _sound(host, names))


async def until_verified(client: SupervisorClient, *names: str) -> HostSnapshot:
    """Return the host once these guests have noticed their restore and walked since."""
    return await until(lambda host: verified(host, *names), client)


async def one_more_pass(client: SupervisorClient, *names: str) -> HostSnapshot:
    """Return the host once each of these guests has ended another pass."""
    return await _more_passes(client, names, 1)


async def two_more_passes(client: SupervisorClient, *names: str) -> HostSnapshot:
    """Return the host once each of these restored guests has ended two more passes; the second began after the call."""
    await until(lambda host: all(one.restored for one in _sound(host, names)), client)
    return await _more_passes(client, names, 2)


async def _more_passes(client: SupervisorClient, names: tuple[str, ...], count: int) -> HostSnapshot:
    seen: list[list[int]] = []

    def further(host: HostSnapshot) -> bool:
        seen.append([one.passes for one in _sound(host, names)])
        return all(now >= before + count for now, before in zip(seen[-1], seen[0], strict=True))

    return await until(further, client)


def _sound(host: HostSnapshot, names: tuple[str, ...]) -> list[Guest]:
    """Return what these guests have said, after a look at whether one has read a wrong byte."""
    guests = [guest(host, name) for name in names]
    wrong = [f"{name}: {one.corrupt}" for name, one in zip(names, guests, strict=True) if one.corrupt is not None]
    assert wrong == []
    return guests
