"""`--metadata`: JSON, files and words, and what of them is refused."""

import io
import json
import sys
from pathlib import Path

import pytest

from forktui.actions.metadata import parse_metadata
from forktui.cli.command import UsageError
from forktui.cli.metadata import metadata_of


def test_what_is_given_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "it.json").write_text('{"a": [1]}\n')
    assert metadata_of(None) is None
    assert metadata_of([f"@{tmp_path / 'it.json'}", '{"b": null}', "c=d=e", "f="]) == {
        "a": [1],
        "b": None,
        "c": "d=e",
        "f": "",
    }
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"from": "stdin"}')))
    assert metadata_of(["@-"]) == {"from": "stdin"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["web"], "'web' is neither a JSON object nor key=value"),
        (["=web"], "neither"),
        (["{"], "it is no JSON object"),
        (['{"a": 1, "a": 2}'], "a key is given twice"),
        (["a=1", '{"a": 2}'], "'a' is given twice"),
        (["{" * 100_000], "it is no JSON object"),
        (["@/nowhere"], "/nowhere: No such file or directory"),
        (["@/dev/zero"], "/dev/zero: "),
        (["@/tmp"], "/tmp: "),
    ],
)
def test_what_is_no_metadata_is_a_usage_error(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=r"^--metadata: ") as error:
        metadata_of(words)
    assert told in str(error.value)


def test_a_line_of_a_form_is_read_alike() -> None:
    assert parse_metadata('role=web note="two words"') == {"role": "web", "note": "two words"}
    assert parse_metadata(' {"role": "web", "n": [1]} ') == {"role": "web", "n": [1]}
    for wrong in ('note="open', "web", json.dumps([1])):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            parse_metadata(wrong)
