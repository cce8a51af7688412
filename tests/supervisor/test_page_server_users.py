"""Whether page servers are a user of their own: where the supervisor may make them one, or else why not."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.errors import PageServerError
from supervisor.runtime.page_server_starts import PageServerStarts, PageServerUsers, page_server_users
from supervisor.store.layout import Layout
from supervisor.system import identity
from supervisor.uffd.handle import Policy

UIDS = range(1_879_048_192, 1_879_049_192)


def problem(mode: Any = "auto", uids: range = UIDS) -> str:
    """Return why not."""
    return page_server_users(mode, uids, lambda: 1).problem or ""


def test_it_is_said_why_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem("off") == "jails are off: start the supervisor with --jail auto"
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 1000)
        assert "start the supervisor as root" in problem()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with monkeypatch.context() as patched:
        patched.setattr(identity, "lacking", lambda: ("CAP_SETUID", "CAP_SYS_PTRACE"))
        assert "has no CAP_SETUID, CAP_SYS_PTRACE" in problem()
    monkeypatch.setattr(identity, "lacking", lambda: ())
    assert "has not all uids" in problem(uids=range(2**32, 2**32 + 10))


async def test_one_that_has_to_be_confined_and_cannot_is_refused(tmp_path: Path) -> None:
    inventory = SimpleNamespace(layout=Layout(tmp_path, tmp_path))
    events = SimpleNamespace(whose=lambda _: "source")
    users = PageServerUsers("on", "there is no root", lambda: 1)
    starts = PageServerStarts(cast(Any, inventory), Policy(), cast(Any, events), users, lambda *_, **__: None)
    with pytest.raises(PageServerError) as refused:
        await starts.start(cast(Any, SimpleNamespace(id="one")), (), 2)
    assert refused.value.message == ("page server of source cannot be confined: there is no root; or use --jail auto")
