"""docs/firecracker-versions.md has the table of supervisor/rules/firecracker_versions.py.

FORKTUI_UPDATE_SNAPSHOTS=1 writes it anew.
"""

import os
from typing import Final

from supervisor.rules.firecracker_versions import FAULTS, REVIEWED, TESTED, Fault
from tests.harness.checkout import ROOT

PAGE: Final = ROOT / "docs" / "firecracker-versions.md"
HEADER: Final = "| name | versions | what | done | how | source |\n| --- | --- | --- | --- | --- | --- |\n"
ACTIONS: Final = {"full": "Full, not Diff", "refuse": "refused", "field": "another field", "warn": "said"}


def row(fault: Fault) -> str:
    cells = (f"`{fault.name}`", fault.versions, fault.what, ACTIONS[fault.action], fault.doing, fault.source)
    return f"| {' | '.join(cells)} |\n"


def test_the_page_has_the_table_and_the_versions_that_were_read_and_run() -> None:
    before, header, rest = PAGE.read_text().partition(HEADER)
    told, blank, after = rest.partition("\n\n")
    table = "".join(map(row, FAULTS))
    if os.environ.get("FORKTUI_UPDATE_SNAPSHOTS") == "1":
        PAGE.write_text(before + header + table.removesuffix("\n") + blank + after)
        told = table.removesuffix("\n")
    assert told + "\n" == table, "set FORKTUI_UPDATE_SNAPSHOTS=1 and look at what changed"
    assert f"from 1.12.0 to {REVIEWED}" in before
    assert f"Only {', '.join(TESTED)} was run" in before


def test_the_readme_leads_to_the_page() -> None:
    assert f"]({PAGE.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
