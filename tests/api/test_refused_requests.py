"""What a request may not be: the refusal names the field or the path, and what it may be."""

import httpx
import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import CreateRequest
from tests.harness.refusals import refused


async def test_an_error_names_what_is_wrong(client: SupervisorClient) -> None:
    """Each in the supervisor's own words, with its code and status."""
    unknown = await refused(client.instance("nobody"))
    assert (unknown.status, unknown.code) == (404, "not_found")
    assert "nobody" in unknown.message
    image = await refused(client.create(CreateRequest(name="a", image="no-such-image")))
    assert (image.status, image.code) == (400, "invalid_image")
    size = await refused(client.create(CreateRequest(name="a", image="pagewalker", size="much")))
    assert (size.status, size.code) == (400, "invalid_size")
    await client.create(CreateRequest(name="taken", image="pagewalker"))
    conflict = await refused(client.create(CreateRequest(name="taken", image="pagewalker")))
    assert (conflict.status, conflict.code) == (409, "name_conflict")
    for error in (unknown, image, size, conflict):
        assert "\n" not in error.message


@pytest.mark.parametrize("reference", ["..", ".", "a/b", "a%2Fb", "a b", "ü", "a\nb", "?", "#", "x" * 4000])
async def test_a_strange_reference_is_not_found(client: SupervisorClient, reference: str) -> None:
    """It reaches the supervisor as it is, and no other route."""
    error = await refused(client.instance(reference))
    assert (error.status, error.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["name: it is missing", "image: it is missing"]),
        (b"{", ["not JSON"]),
        (b"\xff\xfe", ["not JSON"]),
        (b"[" * 100_000, ["not JSON"]),
        (b"[]", ["not a JSON object"]),
        (b'"text"', ["not a JSON object"]),
        (b'{"name":"Bad_Name","image":"pagewalker"}', ["name: 'Bad_Name'", "lowercase letters, digits and dashes"]),
        (b'{"name":"-a","image":"pagewalker"}', ["name: '-a'", "letter or digit at both ends"]),
        (b'{"name":"a\\u001b[2J","image":"pagewalker"}', ["name: 'a\\x1b[2J'"]),
        (b'{"name":"%s","image":"pagewalker"}' % (b"a" * 64), ["name", "at most 63 characters"]),
        (b'{"name":"a","image":7}', ["image: 7", "string"]),
        (b'{"name":"a","image":"pagewalker","vcpus":99}', ["vcpus: 99", "less than or equal to 32"]),
        (b'{"name":"a","image":"pagewalker","hypervisor":"qemu"}', ["hypervisor: 'qemu'", "firecracker", "embedded"]),
    ],
)
def test_a_bad_body_is_explained_in_one_line(http: httpx.Client, body: bytes, words: list[str]) -> None:
    """The line names the field and says what it may be, whatever the field holds."""
    answer = http.post("/instances", content=body, headers={"Content-Type": "application/json"})
    error = answer.json()
    assert (answer.status_code, error["code"]) == (400, "bad_request")
    assert all(word in error["message"] for word in words), error["message"]
    assert error["message"].isprintable()
    assert len(error["message"]) < 400


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/instances?state=Asleep", 400, ["state: 'Asleep'", "'Standby'"]),
        ("GET", "/instances/a/wait", 400, ["state: it is missing"]),
        ("GET", "/instances/a/wait?state=Running&timeout=soon", 400, ["timeout: 'soon'", "500ms"]),
        ("GET", "/instances/a/wait?state=Running&timeout=-5s", 400, ["timeout: '-5s'"]),
        ("GET", "/instances/a/logs?tail=-1", 400, ["tail: '-1'"]),
        ("GET", "/instances/a/logs?source=kernel", 400, ["source: 'kernel'", "'app'"]),
        ("GET", "/instances/a/memory?width=0", 400, ["width: '0'"]),
        ("DELETE", "/instances/a?dryrun=true", 400, ["dryrun"]),
        ("DELETE", "/instances/a?dry_run=perhaps", 400, ["dry_run: 'perhaps'"]),
        ("POST", "/instances/a/explode", 404, ["/instances/a/explode"]),
        ("GET", "/", 404, ["/instances"]),
        ("PUT", "/instances", 405, ["PUT", "GET"]),
        ("POST", "/events", 405, ["POST", "GET"]),
        ("PATCH", "/health", 405, ["PATCH"]),
    ],
)
def test_a_bad_request_is_refused(http: httpx.Client, method: str, path: str, status: int, words: list[str]) -> None:
    """Queries, routes and methods are refused as bodies are."""
    answer = http.request(method, path)
    error = answer.json()
    assert answer.status_code == status
    assert error["code"] == {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}[status]
    assert all(word in error["message"] for word in words), error["message"]


def test_what_is_not_known_is_passed_over_only_where_hypeman_may_know_it(http: httpx.Client) -> None:
    """A mistyped dry_run would make forks."""
    assert http.post("/instances", json={"name": "some", "image": "pagewalker", "env": {"a": "b"}}).status_code == 201
    for path, body in (("fan-out", {"count": 2, "dryrun": True}), ("checkpoint", {"named": "x"})):
        answer = http.post(f"/instances/some/{path}", json=body)
        assert answer.status_code == 400
        assert answer.json()["message"].endswith("is not known here; leave it out")
    assert [one["name"] for one in http.get("/instances").json()] == ["some"]
    http.delete("/instances/some")


def test_a_body_that_is_not_json_or_is_too_large_is_refused(http: httpx.Client) -> None:
    """10 MiB are refused before they are read, by length or in pieces."""
    large = b" " * (10 << 20)
    text = http.post("/instances", content=b"name: a", headers={"Content-Type": "application/yaml"})
    assert (text.status_code, text.json()["code"]) == (415, "unsupported_media_type")
    assert "application/yaml" in text.json()["message"]
    told = http.post("/instances", content=large)
    pieces = http.post("/instances", content=(large[start : start + 65536] for start in range(0, len(large), 65536)))
    for answer in (told, pieces):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
