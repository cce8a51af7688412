"""`python -m benchmarks`: measure, and print tables with what was promised beside what was found."""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import (
    checkpoint,
    crowds,
    dashboard,
    disks,
    faults,
    flood,
    forks,
    image,
    jails,
    machine,
    memory,
    merge,
    standby,
    storm,
    takeover,
    telemetry,
    thousand,
    walk,
)
from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.measurement import Result, Skipped
from benchmarks.report import as_json, as_text
from supervisor.vmm.hypervisor import available, embedded_hypervisor

MODULES: Final = (
    walk,
    faults,
    storm,
    forks,
    memory,
    takeover,
    standby,
    checkpoint,
    merge,
    image,
    disks,
    jails,
    telemetry,
    thousand,
    crowds,
    flood,
    dashboard,
)
BENCHMARKS: Final[Mapping[str, Callable[[Bench], Awaitable[Result]]]] = {
    module.NAME: module.measure for module in MODULES
}
ROUNDS: Final = 15
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for; returns 0 whatever they found."""
    options = _parse(arguments)
    # In /tmp whatever TMPDIR says: sockets are in it, and sun_path is short.
    with tempfile.TemporaryDirectory(prefix=f"ft-bench-{os.getpid()}-", dir="/tmp") as folder:
        bench = Bench(
            folder=Path(folder),
            rounds=options.rounds,
            sizes=QUICK if options.quick else Sizes(),
            firecracker=available(options.firecracker)["firecracker"],
            embedded=embedded_hypervisor(),
        )
        found = machine.describe(bench)
        print(machine.as_line(found), flush=True)
        results = asyncio.run(_run(bench, options.only))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(found, options.rounds, results), indent=1) + "\n")
    return 0


async def _run(bench: Bench, names: Sequence[str]) -> list[Result]:
    results = []
    for name in names:
        try:
            result = await BENCHMARKS[name](bench)
        except Skipped as reason:
            result = Result(name, "", skipped=str(reason))
        print(f"\n{as_text(result)}", flush=True)
        results.append(result)
    return results


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    every = ",".join(BENCHMARKS)
    parser.add_argument("--only", type=_names, default=list(BENCHMARKS), metavar="A,B", help=f"of {every}")
    parser.add_argument("--rounds", type=_positive, default=ROUNDS, help=f"how often everything is measured ({ROUNDS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there as well")
    parser.add_argument("--firecracker", type=Path, metavar="PATH", help="in place of the one in PATH")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: everything runs and nothing is measured")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(BENCHMARKS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds, 1 or more")
    return int(text)


if __name__ == "__main__":
    # As with SIGINT, everything that runs is ended and removed first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
