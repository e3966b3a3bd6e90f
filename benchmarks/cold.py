"""Cold starts: the first call of functions that never ran."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from benchmarks import packages, peers, report
from benchmarks.arguments import Options

CPUS = (peers.CPU, 100)
TARGET = 15.0
"""Milliseconds beyond the function's own import time."""
PAUSE = 0.1
"""Seconds between cold starts, so that the spare worker-to-be of the platform is there again, as it is for
a call that comes alone."""

TRIVIAL = """\
def main(**context):
    return 0.0
"""
IMPORTING = """\
import time
started = time.perf_counter()
import argparse, asyncio, csv, decimal, email.message, http.client, logging, sqlite3, unittest
IMPORTED = time.perf_counter() - started

def main(**context):
    return IMPORTED
"""
MODULES = {"trivial": TRIVIAL, "imports for a while": IMPORTING}


def measure(ours: peers.Platform, options: Options) -> report.Section:
    kinds = [(cpu, kind) for cpu in CPUS for kind in MODULES]
    samples: dict[tuple[int, str], list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(options.fresh):
        made = [_fresh(ours, *kind) for kind in kinds]
        for kind, function_id in zip(kinds, made, strict=True):
            samples[kind].append(_first_call(ours, function_id))
        for function_id in made:
            ours.api.call("DELETE", f"/v1/functions/{function_id}")
    return report.Section(
        "cold",
        f"Cold start: first call of a never-run function, {options.fresh} of each kind",
        ("function", "own import ms", "call ms p50", "p95", "beyond import ms p50", "p95"),
        [(f"{kind}, {cpu} millicores", *_cells(samples[cpu, kind])) for cpu, kind in kinds],
        notes=(
            "a call is a whole synchronous execution; the function's module itself measures its import",
            "100 millicores are 10 ms of processor time in 100 ms: who needs more waits for the next 100 ms",
        ),
        targets=list(_targets(samples)),
        samples=[
            {"cpu": cpu, "kind": kind, "call_and_import_seconds": samples[cpu, kind]} for cpu, kind in kinds
        ],
    )


def _fresh(ours: peers.Platform, cpu: int, kind: str) -> str:
    package = packages.of_text("main.py", MODULES[kind])
    return ours.api.create_function(ours.runtime_id, package, "main.main", cpu=cpu)


def _first_call(ours: peers.Platform, function_id: str) -> tuple[float, float]:
    """Seconds of the call and of the import within it."""
    time.sleep(PAUSE)
    started = time.perf_counter()
    imported = ours.api.run(function_id)
    return time.perf_counter() - started, imported


def _beyond(samples: list[tuple[float, float]]) -> list[float]:
    return [(call - imported) * 1e3 for call, imported in samples]


def _cells(samples: list[tuple[float, float]]) -> Iterator[str]:
    yield f"{statistics.median(imported for _, imported in samples) * 1e3:.1f}"
    for values in ([call * 1e3 for call, _ in samples], _beyond(samples)):
        yield f"{report.percentile(values, 50):.1f}"
        yield f"{report.percentile(values, 95):.1f}"


def _targets(samples: dict[tuple[int, str], list[tuple[float, float]]]) -> Iterator[report.Target]:
    for (cpu, kind), each in samples.items():
        if cpu == peers.CPU:
            measured = report.percentile(_beyond(each), 50)
            yield report.Target(f"cold start beyond import, {kind}: p50", measured, TARGET, "ms")
