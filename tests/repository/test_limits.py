"""No file and no function is longer than what one looks over at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.harness.checkout import PACKAGES, ROOT

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 50


def sources() -> Iterator[Path]:
    """Yield every Python file of the programs, their tests and their benchmarks."""
    for tree in (*PACKAGES, "tests", "benchmarks"):
        yield from sorted((ROOT / tree).rglob("*.py"))


def long_functions(text: str) -> Iterator[str]:
    """Yield the name and the lines of each function that is too long, from its `def` line to its end."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines, and a function at most {MOST_FUNCTION_LINES}"


def test_no_file_is_too_long() -> None:
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in sources()}
    assert len(lines) > 100
    found = [
        f"{path} has {count} lines, and a file at most {MOST_FILE_LINES}"
        for path, count in lines.items()
        if count > MOST_FILE_LINES
    ]
    assert found == [], "\n".join(found)


def test_no_function_is_too_long() -> None:
    found = [f"{path.relative_to(ROOT)}: {told}" for path in sources() for told in long_functions(path.read_text())]
    assert found == [], "\n".join(found)


def test_the_lines_of_a_function_are_counted_from_its_def_to_its_end() -> None:
    body = "    pass\n" * (MOST_FUNCTION_LINES - 1)
    assert list(long_functions(f"@decorator\ndef f():\n{body}\n\n\nx = 1\n")) == []
    assert list(long_functions(f"async def f():\n{body}    pass\n")) == ["f has 51 lines, and a function at most 50"]
