"""What a guest may be said to be ready by."""

import pytest

from supervisor.models.readiness import on_load, parse_readiness


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tcp:10.0.0.2:22", ("tcp", "10.0.0.2", 22)),
        ("tcp:[fd00::2]:8080", ("tcp", "fd00::2", 8080)),
        ("vsock:52", ("vsock", "", 52)),
        ("console:a:b", ("console", "", 0)),
    ],
)
def test_what_is_meant_is_read(text: str, meant: tuple[str, str, int]) -> None:
    found = parse_readiness(text)
    assert (found.kind, found.address, found.port) == meant


@pytest.mark.parametrize(
    "text",
    ["", "ready", "console:", "console:(", "tcp:22", "tcp:host:22", "tcp:10.0.0.2:0", "tcp:10.0.0.2:65536", "vsock:",
     "vsock:-1", "vsock:²", "vsock:4294967295", "vsock:99999999999", "http:x", "console:a\nb", "console:\x1b[2J"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{10,}$"):
        parse_readiness(text)


def test_a_line_of_a_boot_is_not_waited_for_by_what_comes_from_a_snapshot() -> None:
    assert [on_load(one) for one in (None, "console:login:", "tcp:10.0.0.2:22", "vsock:52")] == [
        None, None, None, "vsock:52",
    ]  # fmt: skip
