"""How a value that a model refuses is explained: one line that says where, what it is, and what it may be."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from supervisor.models import Name, explain, quoted, what_is_wrong
from supervisor.models.validation import QUOTED_LENGTH


def _short(path: Path) -> Path:
    if len(str(path)) > 3:
        raise ValueError("it may have 3 characters")
    return path


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=1)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name = "a"
    kind: Literal["hot", "cold"] = "hot"
    label: str = Field(default="", pattern="^[x]*$", max_length=200)
    path: Annotated[Path, AfterValidator(_short)] = Path("/")
    parts: tuple[Part, ...] = ()


def explained(json: str, whole: str = "") -> str:
    with pytest.raises(ValidationError) as refused:
        Whole.model_validate_json(json)
    return explain(refused.value.errors()[0], whole)


@pytest.mark.parametrize(
    ("json", "line"),
    [
        ("{", "it is not JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "it is not a JSON object; put its fields in braces"),
        ('{"parts": [{}]}', "parts.0.size: it is missing, and required"),
        ('{"parts": [7]}', "parts.0: it is not a JSON object; put its fields in braces"),
        ('{"parts": {}}', "parts: it should be a valid array"),
        ('{"parts": [{"size": 0}]}', "parts.0.size: 0 is refused: it should be greater than or equal to 1"),
        ('{"nme": "a"}', "nme: it is not known here; leave it out"),
        (
            '{"name": "-"}',
            "name: '-' is refused: it takes lowercase letters, digits and dashes, with a letter or digit at both ends",
        ),
        ('{"label": "y"}', "label: 'y' is refused: it should match pattern '^[x]*$'"),
        ('{"kind": "warm"}', "kind: 'warm' is refused: it should be 'hot' or 'cold'"),
        ('{"kind": null}', "kind: None is refused: it should be 'hot' or 'cold'"),
        ('{"path": "/abc"}', "path: '/abc' is refused: it may have 3 characters"),
    ],
)
def test_a_line_says_where_and_what_is_wrong(json: str, line: str) -> None:
    assert explained(json) == line


def test_what_was_given_as_a_whole_has_the_name_that_its_giver_knows() -> None:
    assert explained("[]", "the body") == "the body: it is not a JSON object; put its fields in braces"
    assert explained('{"kind": 1}', "the body").startswith("kind: 1 is refused: ")


def test_who_knows_better_where_it_came_from_says_only_what_is_wrong() -> None:
    with pytest.raises(ValidationError) as refused:
        Whole.model_validate({"path": Path("/abc")})
    assert what_is_wrong(refused.value.errors()[0]) == "'/abc' is refused: it may have 3 characters"


@pytest.mark.parametrize("text", ["x" * 10_000, "\\u001b[2J" * 3000, "\\n" * 5000])
def test_neither_a_value_nor_a_field_makes_a_line_long_or_two(text: str) -> None:
    for json in (f'{{"label": "{text}"}}', f'{{"name": "{text}"}}', f'{{"{text}": 1}}'):
        line = explained(json)
        assert len(line) < 4 * QUOTED_LENGTH
        assert line.isprintable()


def test_a_quoted_value_is_whole_up_to_its_bound() -> None:
    longest = "x" * QUOTED_LENGTH
    assert quoted(longest) == f"'{longest}'"
    assert quoted(longest + "x") == f"'{longest}...'"
