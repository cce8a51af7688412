"""`GET /metrics` of a real supervisor: what it counts, that no sum falls, and Prometheus's rules of names."""

import asyncio
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from forktui.client.api import ApiError
from supervisor.models import FanOutRequest
from supervisor.telemetry.durations import BOUNDS_SECONDS, Durations
from supervisor.telemetry.page_totals import SUMMED, PageTotals
from supervisor.uffd.page_map import LATENCY_BUCKETS, PageCounters
from tests.harness.checkout import ROOT
from tests.harness.supervisor_process import Home, RunningSupervisor, supervisor, until
from tests.harness.verified_guests import standby_source

ABBREVIATED = re.compile(r"_(ms|us|ns|sec|kb|mb|gb|kib|mib|gib|percent|milliseconds|megabytes)(_|$)")
"""Units that promtool's linter refuses: names have base units, spelled out."""


async def scraped(running: RunningSupervisor, accept: str = "") -> dict[str, Metric]:
    """Return what a scrape finds, by name."""
    transport = httpx.AsyncHTTPTransport(uds=str(running.client.socket))
    async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as http:
        answer = await http.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text" if accept else "text/plain")
    parse = openmetrics.text_string_to_metric_families if accept else text_string_to_metric_families
    return {family.name: family for family in parse(answer.text)}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    """Return the only sample of a metric that has all of these labels."""
    (one,) = (
        sample.value
        for family in found.values()
        for sample in family.samples
        if sample.name == f"forktui_{name}" and labels.items() <= sample.labels.items()
    )
    return one


def problems(families: Iterable[Metric]) -> list[str]:
    """Return what promtool's linter would say."""
    said = []
    for one in families:
        counter = any(sample.name.endswith("_total") for sample in one.samples)
        if not one.name.startswith("forktui_") or not re.fullmatch(r"[a-z][a-z0-9_]*", one.name):
            said.append(f"{one.name}: its name")
        if not one.documentation or one.type == "unknown":
            said.append(f"{one.name}: no help, or no type")
        if one.samples and counter is not (one.type == "counter"):
            said.append(f"{one.name}: _total is for counters")
        if ABBREVIATED.search(one.name) or any(kind in one.name for kind in ("gauge", "counter", "histogram")):
            said.append(f"{one.name}: its unit, or its type in its name")
        if any(label in ("id", "name", "instance", "vm") for sample in one.samples for label in sample.labels):
            said.append(f"{one.name}: a label of one VM")
    return said


async def test_a_fan_out_is_in_the_sums_and_nothing_counted_falls(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client)
        await client.fan_out(source.id, FanOutRequest(count=3, name_prefix="vm", prefetch="off", record="off"))
        with pytest.raises(ApiError):
            await client.restore(source.id)
        await until(lambda host: sum(one.faults > 0 for one in host.statistics) == 3, client)
        found = await scraped(running)
        assert problems(found.values()) == []
        assert [value(found, "instances", state=state) for state in ("Running", "Standby", "Stopped")] == [3, 1, 0]
        assert [value(found, name) for name in ("forks", "locked_instances", "templates")] == [3, 1, 1]
        assert value(found, "page_faults_total") == value(found, "pages_total", kind="faulted") > 0
        assert value(found, "page_fault_seconds_count") == value(found, "page_fault_seconds_bucket", le="+Inf")
        assert value(found, "operation_seconds_count", verb="fan-out", outcome="done") == 1
        assert value(found, "operation_seconds_count", verb="fork", outcome="done") == 3
        assert value(found, "refusals_total", code="invalid_state") == 1
        assert value(found, "page_server_restarts_total") == 0

        (template,) = (await client.snapshot()).templates
        assert template.page_server_pid is not None
        psutil.Process(template.page_server_pid).kill()
        await until(lambda host: any(one.page_server_restarts for one in host.templates), client)
        for name in ("vm-1", "vm-2", "vm-3"):
            await client.delete(name)
        later = await scraped(running, "application/openmetrics-text; version=1.0.0")
        assert value(later, "page_server_restarts_total") == 1
        assert value(later, "forks") == 0
        for family in found.values():
            for sample in family.samples if family.type in ("counter", "histogram") else ():
                assert value(later, sample.name.removeprefix("forktui_"), **sample.labels) >= sample.value


def counters(numbers: Sequence[int]) -> PageCounters:
    """Return counters of which those that are summed up have these values."""
    fields = dict(zip(SUMMED, numbers, strict=True))
    others: dict[str, Any] = {name: 0 for name in PageCounters._fields if name not in fields}
    latencies = {"latency_counts": (numbers[0],) + (0,) * (LATENCY_BUCKETS - 1), "prefetch_finished": False}
    return PageCounters(**{**others, **fields, **latencies})


LOOKS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.none() | st.lists(st.integers(0, 9), min_size=len(SUMMED), max_size=len(SUMMED))
    )
)
"""A fork and its counters at a look, or its end."""


@given(LOOKS)
def test_sums_never_fall_and_have_all_that_was_seen(looks: list[tuple[str, list[int] | None]]) -> None:
    totals, before = PageTotals(), PageTotals().sums()
    last: dict[str, list[int]] = {}
    whole = [0] * len(SUMMED)
    for fork, numbers in looks:
        if numbers is None or any(now < then for now, then in zip(numbers, last.get(fork, numbers), strict=True)):
            whole = [had + then for had, then in zip(whole, last.pop(fork, [0] * len(SUMMED)), strict=True)]
        if numbers is None:
            totals.end(fork)
        else:
            last[fork] = numbers
            totals.see(fork, counters(numbers))
        now = totals.sums()
        assert list(now.counters.values()) == [sum(one) for one in zip(whole, *last.values(), strict=True)]
        assert all(now.counters[name] >= before.counters[name] for name in SUMMED)
        assert now.latency_counts[0] == now.counters["faults"]
        before = now


@given(st.lists(st.floats(0, 1000)))
def test_each_duration_is_in_the_first_bucket_that_holds_it(seconds: list[float]) -> None:
    found = Durations()
    for one in seconds:
        found.add(one)
    for place, bound in enumerate(BOUNDS_SECONDS):
        assert sum(found.counts[: place + 1]) == sum(one <= bound for one in seconds)
    assert sum(found.counts) == len(seconds)


async def test_the_table_of_the_documentation_is_what_a_scrape_finds(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        found = await scraped(running)
        line = re.search(r"^curl .*/metrics$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
        assert line is not None
        words = shlex.split(line[0].replace("/run/forktui/supervisor.sock", str(running.client.socket)))
        curl = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert b"# HELP forktui_instances Instances by state.\n" in (await curl.communicate())[0]
    text = (ROOT / "docs" / "metrics.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [table_row(one) for one in found.values()]
    for name in re.findall(r"(forktui_\w+)[{\[ ]", text.partition("Worth an alert")[2]):
        assert name.removesuffix("_total") in found


def table_row(family: Metric) -> str:
    """Return what the documentation says of a metric."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"| `{name}` | {family.type} | {family.documentation} |"
