"""What is not a call: a long list, and a large upload."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from benchmarks import packages, peers, report
from benchmarks.arguments import Options

LISTS, UPLOADS = 50, 12
LIST_TARGET = 12.0
"""Milliseconds."""
UPLOAD = 5 * 1024 * 1024


def measure_list(ours: peers.Platform, token: str, options: Options) -> report.Section:
    """``token`` is of a project without functions."""
    api = peers.Api(ours.port, token)
    package = packages.of_text("main.py", "def main(**context):\n    return 0\n")
    for number in range(options.functions):
        api.create_function(ours.runtime_id, package, "main.main", name=f"function {number}")
    size = len(api.raw("GET", "/v1/functions"))
    times = [_timed(lambda: api.raw("GET", "/v1/functions")) for _ in range(LISTS)]
    median = statistics.median(times) * 1e3
    return report.Section(
        "list",
        f"List of {options.functions} functions (GET /v1/functions), {LISTS} times",
        ("", "bytes", "p50 ms", "p95 ms"),
        [("the whole list", f"{size}", f"{median:.2f}", f"{report.percentile(times, 95) * 1e3:.2f}")],
        targets=[report.Target(f"list of {options.functions} functions: p50", median, LIST_TARGET, "ms")],
        samples={"bytes": size, "seconds": times},
    )


def measure_create(ours: peers.Platform) -> report.Section:
    bodies = [packages.of_text("data.bin", os.urandom(UPLOAD)) for _ in range(UPLOADS)]
    times = [_timed(lambda body=body: _upload(ours, body)) for body in bodies]  # type: ignore[misc]
    return report.Section(
        "create",
        f"Create with a package of 5 MiB (POST /v1/functions), {UPLOADS} times",
        ("", "p50 ms", "least ms", "most ms"),
        [("each another package", *(f"{f(times) * 1e3:.1f}" for f in (statistics.median, min, max)))],
        notes=("checked, hashed, stored and synced to disk before the answer",),
        samples={"bytes": UPLOAD, "seconds": times},
    )


def _upload(ours: peers.Platform, body: bytes) -> None:
    ours.api.create_function(ours.runtime_id, body, "main.main")


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
