"""What `pytest -m quick` runs."""

import re
import sys

import pytest

from tests.harness.checkout import run

pytestmark = pytest.mark.slow


def quick(path: str) -> list[str]:
    """Return the names of the quick tests of a file."""
    told = run(sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-q", "-m", "quick", f"tests/{path}")
    return re.findall(r"::(\S+)$", told.stdout, re.MULTILINE)


def test_the_main_job_on_each_hypervisor_is_all_of_the_fan_outs() -> None:
    name = "test_a_fan_out_is_recorded_prefetched_verified_locked_and_released"
    assert quick("supervisor/test_fan_out.py") == [f"{name}[embedded]", f"{name}[firecracker]"]


def test_what_starts_no_supervisor_is_quick_unless_it_is_slow() -> None:
    assert quick("repository/test_limits.py") != []
    assert quick("repository/test_leftovers.py") == []
