"""Reading what pagewalker prints."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.models import Guest
from supervisor.telemetry.guest_console import GuestConsole, advance


@pytest.mark.parametrize(
    ("lines", "guest"),
    [
        ([b"ready"], Guest(ready=True)),
        ([b"ready", b"pass 1", b"pass 2"], Guest(ready=True, passes=2)),
        ([b"pass 7", b"restored"], Guest(ready=True, restored=True)),
        ([b"restored", b"pass 1", b"done"], Guest(ready=True, restored=True, passes=1, done=True)),
        ([b"pass 1", b"CORRUPT 0x2000ff8"], Guest(ready=True, passes=1, corrupt="0x2000ff8")),
        ([b"error: memory too small"], Guest(corrupt="memory too small")),
        ([b"[    0.000000] Linux version", b"pass", b"pass x", b"CORRUPT it"], Guest()),
        ([b"ready\r"], Guest(ready=True)),
    ],
)
def test_lines_change_what_is_known_of_the_guest(lines: list[bytes], guest: Guest) -> None:
    found = Guest()
    for line in lines:
        found = advance(found, line)
    assert found == guest


def test_a_console_is_read_from_its_offset_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    console = GuestConsole(path, position=6)
    assert console.read() == Guest()
    path.write_bytes(b"ready\nrestored\npass 1\npa")
    assert console.read() == Guest(ready=True, restored=True, passes=1)
    with path.open("ab") as file:
        file.write(b"ss 2\n")
    assert console.read().passes == 2


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_in_any_pieces_are_read_alike(data: bytes, cut: int) -> None:
    whole = Guest()
    for line in data.split(b"\n")[:-1]:
        whole = advance(whole, line)
    with tempfile.TemporaryDirectory() as directory:
        console = GuestConsole(path := Path(directory, "console.log"), position=0)
        for piece in (data[:cut], data[cut:]):
            with path.open("ab") as file:
                file.write(piece)
            console.read()
    assert console.guest == whole
