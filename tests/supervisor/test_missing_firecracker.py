"""Where Firecracker cannot run, whoever asks for it is told why and what would allow it, and so is whoever looks."""

from pathlib import Path

import pytest

from forktui.client.api import ApiError
from supervisor.models import CreateRequest
from tests.harness.supervisor_process import Home, supervisor


async def test_why_it_cannot_run_is_in_the_refusal_and_in_what_the_supervisor_says_of_itself(
    embedded: Home, tmp_path: Path
) -> None:
    missing = tmp_path / "firecracker"
    embedded.options = ("--firecracker", str(missing))
    async with supervisor(embedded) as running:
        problem = (await running.client.snapshot()).supervisor.firecracker_problem
        assert problem is not None
        assert problem.startswith(f"{missing} cannot be run: No such file or directory; name one for ")
        assert problem.endswith("with --firecracker PATH")
        with pytest.raises(ApiError) as refused:
            await running.client.create(CreateRequest(name="web", image="pagewalker", hypervisor="firecracker"))
        why = f"firecracker cannot run here: {problem}; a supervisor looks for that when it starts"
        assert why in refused.value.message


async def test_where_it_runs_nothing_is_said_of_it(firecracker_home: Home) -> None:
    async with supervisor(firecracker_home) as running:
        assert (await running.client.snapshot()).supervisor.firecracker_problem is None
