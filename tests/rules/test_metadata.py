"""What an instance may be told: JSON of bounded size and depth, and nothing that only one reader of it takes."""

import json

import pytest
from pydantic import ValidationError

from supervisor.models import CheckpointRequest, CreateRequest, ForkRequest
from supervisor.models.metadata import DEEPEST_METADATA, MOST_METADATA, encoded


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    "text",
    ['{"role": "web", "tier": 1, "share": 0.5, "on": true, "off": null, "list": [1, {"é": "\\u0000"}]}', "{}",
     nested(DEEPEST_METADATA), json.dumps({"a": "é" * (MOST_METADATA // 2 - 5)})],
)  # fmt: skip
def test_json_of_any_shape_is_taken(text: str) -> None:
    request = ForkRequest.model_validate_json(f'{{"metadata": {text}}}')
    assert request.metadata == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["[]", '"web"', "1", '{"forktui": {}}', nested(DEEPEST_METADATA + 1), nested(1000), '{"a": NaN}', '{"a": 1e999}',
     '{"a": 9223372036854775808}', '{"a": -1' + "0" * 5000 + "}", '{"a": "\\ud800"}', '{"\\udc00": 1}', '{"a": [[[[' ,
     json.dumps({"a": "x" * MOST_METADATA}), json.dumps({str(number): [] for number in range(MOST_METADATA // 8)})],
    ids=range(15),
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    for model in (ForkRequest, CheckpointRequest, CreateRequest):
        with pytest.raises(ValidationError):
            model.model_validate_json(f'{{"name": "web", "image": "i", "metadata": {text}}}')


def test_what_is_counted_is_what_is_told() -> None:
    assert encoded({"é": [1, None]}) == '{"é":[1,null]}'.encode()
