"""Who is meant by a reference: an exact id before a name, a name before a unique id prefix; and no name like an id."""

import json
from collections.abc import Awaitable
from pathlib import Path

import pytest
from pydantic import ValidationError

from supervisor.errors import BadRequestError, InvalidStateError, NameConflictError, NotFoundError
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, State, is_id
from supervisor.store.index import Index
from supervisor.store.record_files import Loaded, SetAside
from supervisor.store.records import InstanceRecord
from supervisor.store.registry import new_id
from tests.harness.refusals import refused
from tests.harness.standby_records import standby_record
from tests.harness.supervisor_process import PATIENCE, Home, supervisor

ONE, OTHER = "a" + "1" * 23, "a" + "2" * 23


def index(*records: InstanceRecord, unreadable: dict[str, str] | None = None) -> Index:
    made = Index()
    aside = {directory: SetAside(reason) for directory, reason in (unreadable or {}).items()}
    made.fill(Loaded(list(records), unreadable=aside))
    return made


def test_an_exact_id_is_before_a_name_and_a_name_before_a_prefix() -> None:
    known = index(standby_record(ONE, "one"), standby_record("b1", "a1"), standby_record("c1", "b1"))
    assert known.resolve(ONE).name == "one"
    assert known.resolve("b1").name == "a1"
    assert known.resolve("c1").name == "b1"
    assert known.resolve("a1").id == "b1", "a name that others' ids begin with"
    assert known.resolve("a111").id == ONE
    with pytest.raises(NotFoundError):
        known.resolve("B1")


def test_a_name_of_an_earlier_version_that_is_like_an_id_means_nobody() -> None:
    """It stays reachable by its id, which the refusal tells; whoever has an id means that one, gone or not."""
    known = index(standby_record(ONE, OTHER), standby_record(OTHER, "other"))
    assert known.resolve(ONE).name == OTHER
    assert known.resolve(OTHER).name == "other"
    known.drop(standby_record(OTHER, "other"))
    with pytest.raises(
        NotFoundError, match=f"{OTHER}: no instance has this id; one that is named so is reached by its own: {ONE}"
    ):
        known.resolve(OTHER)
    assert known.resolve(ONE[:12]).id == ONE


def test_a_name_that_is_being_made_is_nobodys_prefix() -> None:
    known = index(standby_record("webs1", "one"))
    assert known.resolve("webs").id == "webs1"
    with known.reserved("webs", "x1"), pytest.raises(NotFoundError, match="webs: it is being made"):
        known.resolve("webs")
    assert known.resolve("webs").id == "webs1"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_letter_or_three_mean_nobody(length: int) -> None:
    known = index(standby_record(ONE, "one"))
    with pytest.raises(NotFoundError, match="no instance has this name; of an id at least 4 characters"):
        known.resolve(ONE[:length])
    assert known.resolve(ONE[:4]).id == ONE


def test_a_record_that_cannot_be_read_is_meant_by_its_id_and_no_other_is() -> None:
    known = index(
        standby_record("webs1", "a1"),
        standby_record("b1", "a2"),
        unreadable={"a1": "torn", "a22": "torn", "webs2": "torn"},
    )
    with pytest.raises(InvalidStateError, match="a1: nothing is done to it, since its record is set aside: torn"):
        known.resolve("a1")
    with pytest.raises(InvalidStateError, match="a22: nothing is done to it, since its record is set aside: torn"):
        known.resolve("a22")
    with pytest.raises(BadRequestError, match=r"webs: 2 ids begin so \(a1, webs2\)"):
        known.resolve("webs")
    assert known.resolve("a2").id == "b1"
    with pytest.raises(NameConflictError, match="a1"), known.reserved("a1", "x1"):
        pass


def test_of_two_with_one_name_neither_is_guessed() -> None:
    """A record that could not be read is repaired, and another was named so meanwhile."""
    known = index(standby_record(ONE, "web"), standby_record(OTHER, "web"))
    with pytest.raises(BadRequestError, match=rf"web: 2 instances are named so; give the id \({ONE}, {OTHER}\)"):
        known.resolve("web")
    known.drop(standby_record(ONE, "web"))
    assert known.resolve("web").id == OTHER
    with pytest.raises(NameConflictError), known.reserved("web", "x1"):
        pass
    known.drop(standby_record(OTHER, "web"))
    with known.reserved("web", "x1"):
        pass


def test_no_name_is_taken_that_is_somebodys_id() -> None:
    """Whatever its shape: a directory may have been named by hand."""
    known = index(standby_record("web-1", "one"), unreadable={"web-2": "torn"})
    with pytest.raises(NameConflictError, match="web-1: it is an instance's id"), known.reserved("web-1", "x1"):
        pass
    names = known.free_names("web")
    assert next(names) == "web-3"


@pytest.mark.parametrize("name", [ONE, "abcdefghijklmnopqrstuvwx", "z9" * 12])
def test_a_new_name_in_the_shape_of_an_id_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="shape of an id"):
        CreateRequest(name=name, image="pagewalker")
    with pytest.raises(ValidationError, match="shape of an id"):
        ForkRequest(name=name)
    with pytest.raises(ValidationError, match="shape of an id"):
        CheckpointRequest(name=name)
    with pytest.raises(ValidationError, match="shape of an id"):
        FanOutRequest(count=1, name_prefix=name)


def test_whatever_id_is_made_is_no_name() -> None:
    assert all(is_id(new_id()) for _ in range(500))


@pytest.mark.parametrize("name", [ONE[:-1], ONE + "1", "1" + ONE[1:], f"{ONE[:12]}-{ONE[13:]}", "web"])
def test_any_other_name_may_be_given(name: str) -> None:
    assert CreateRequest(name=name, image="pagewalker").name == name


def test_a_name_that_is_made_is_never_like_an_id() -> None:
    known = index(standby_record(OTHER, ONE))
    assert next(known.free_names(ONE)) == f"{ONE}-1"


async def test_no_instance_takes_the_place_of_another(home: Home) -> None:
    """A name is refused with its reason, a name of an earlier version hides nobody, and an id means no other."""

    async def refusal(attempt: Awaitable[object]) -> str:
        error = await refused(attempt)
        assert (error.status, error.code) == (400, "bad_request")
        return error.message

    async with supervisor(home) as running:
        client = running.client
        victim = await client.create(CreateRequest(name="victim", image="pagewalker"))
        await client.wait("victim", State.RUNNING, PATIENCE)
        like_an_id = CreateRequest.model_construct({"name", "image"}, name=victim.id, image="pagewalker")
        message = await refusal(client.create(like_an_id))
        assert message.startswith(f"name: '{victim.id}' is refused: it has the shape of an id")
        fork = ForkRequest.model_construct({"name", "from_running"}, name=victim.id, from_running=True)
        assert "shape of an id" in await refusal(client.fork("victim", fork))
        checkpoint = CheckpointRequest.model_construct({"name"}, name=victim.id)
        assert "shape of an id" in await refusal(client.checkpoint("victim", checkpoint))
        many = FanOutRequest.model_construct({"count", "name_prefix"}, count=1, name_prefix=victim.id)
        assert "shape of an id" in await refusal(client.fan_out("victim", many))
        old = await client.checkpoint("victim", CheckpointRequest(name="old"))
        await client.stop("victim")
    rename(home.data / "instances" / old.id / "instance.json", victim.id)
    async with supervisor(home) as running:
        client = running.client
        assert (await client.instance(victim.id)).name == "victim"
        assert (await client.instance(old.id)).name == victim.id
        child = await client.fork(old.id, ForkRequest(target_state="Standby"))
        assert child.name == f"{victim.id}-1"
        await client.delete(victim.id)
        gone = await refused(client.delete(victim.id))
        assert (gone.status, gone.code) == (404, "not_found")
        assert old.id in gone.message
        assert {one.id for one in await client.instances()} == {old.id, child.id}
        for instance in (child, old):
            await client.delete(instance.id)


def rename(path: Path, name: str) -> None:
    """Give a record another name, as an earlier version may have written it."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": name}))
