"""Several workers start one nested host between them."""

import re
import sys

import pytest

from tests.harness.checkout import run


@pytest.mark.slow
def test_all_tests_of_the_nested_host_are_one_workers_and_others_are_not() -> None:
    files = ("tests/linux/test_packages.py", "tests/rules/test_lineage.py")
    told = run(sys.executable, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *files)
    assert told.returncode == 0, told.stdout
    nested, others = (
        set(re.findall(rf"^\[(gw\d)\].*tests/{place}/", told.stdout, re.MULTILINE)) for place in ("linux", "rules")
    )
    assert len(nested) == 1
    assert others - nested
