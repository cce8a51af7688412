"""A fork handed to a page server that is not the one which it was loaded with."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from supervisor.errors import PageServerError
from supervisor.system.control_connection import ANSWER_SECONDS
from supervisor.system.control_lines import LINE_BYTES, decode, encode
from supervisor.system.log_text import one_line
from supervisor.uffd.takeover import take_userfaultfd


def hand_over(control: Path, vmm_pid: int, fields: dict[str, Any]) -> None:
    """Have a page server adopt the userfaultfd of a VMM, on a connection of its own. Blocks.

    PageServerError when the VMM has gone, or the page server refuses or gives no answer.
    """
    uffd = take_userfaultfd(vmm_pid)
    try:
        answer = _answer_to(control, encode({"id": 0, "verb": "adopt", "vmm_pid": vmm_pid, **fields}), uffd)
    except (OSError, ValueError) as error:
        raise PageServerError(f"the page server at {control} cannot be given a fork: {error}") from error
    finally:
        os.close(uffd)
    if "error" in answer:
        raise PageServerError(one_line(str(answer["error"])))


def _answer_to(control: Path, request: bytes, descriptor: int) -> dict[str, Any]:
    """Return the answer to a request that comes with a descriptor; raises OSError, and ValueError where it is none."""
    until = time.monotonic() + ANSWER_SECONDS
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(os.fspath(control))
        socket.send_fds(connection, [request], [descriptor])
        received = b""
        while (seconds := until - time.monotonic()) > 0:
            connection.settimeout(seconds)
            piece = connection.recv(LINE_BYTES)
            *lines, received = (received + piece).split(b"\n")
            for answer in map(decode, lines):
                if "event" not in answer:
                    return answer
            if not piece or len(received) > LINE_BYTES:
                break
    raise PageServerError(f"the page server at {control} gave no answer")
