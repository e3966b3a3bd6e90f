"""Functions in containers, beside the same functions in processes of the same server, in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Iterator

from benchmarks import cold, engines, load, packages, peers, report
from benchmarks.arguments import Options

CONNECTIONS = (1, 8)
SETTLE = 3.0
"""Seconds of load before the first round, in which workers are added."""
QUIET = 0.6
"""Seconds after the pool is full again: longer than the driver waits before it makes another container."""
POOL = 2
RATIO_TARGET = 1.5
COLD_TARGET = 40.0
"""Milliseconds."""
TITLE = "Docker: functions in containers, beside the process driver of the same server"
PROCESS, POOLED, NOTHING, BARE = (
    "process driver",
    "docker, from its pool",
    "docker, from nothing",
    "a container alone",
)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Samples of one number of connections, in turn: process, container, process, …"""

    connections: int
    processes: list[load.Sample]
    containers: list[load.Sample]

    @property
    def ratios(self) -> list[float]:
        """Of the medians of latency, containers to processes, round by round."""
        return [b.p50 / a.p50 for a, b in zip(self.processes, self.containers, strict=True)]


def measure(directory: pathlib.Path, options: Options) -> report.Section:
    """The section; without an Engine one that says so."""
    try:
        with engines.at_hand(directory) as engine:
            return _measured(engine, directory, options)
    except engines.Missing as missing:
        return report.Section("docker", TITLE, (f"left out: {missing}",), ())


def _measured(engine: engines.Engine, directory: pathlib.Path, options: Options) -> report.Section:
    with _platform(engine, directory / "pooled", POOL) as ours:
        runtime = ours.new_runtime(engines.IMAGE, "docker")
        starts = _pooled_starts(ours, runtime, options.fresh)
        pairs = [_pair(ours, runtime, count, options) for count in CONNECTIONS]
    with _platform(engine, directory / "nothing", 0) as ours:
        starts |= _other_starts(ours, engine, options.fresh)
    return report.Section(
        "docker",
        TITLE,
        ("", "requests/s", "p50 ms", "p95 or p99 ms"),
        [*(row for pair in pairs for row in _warm_rows(pair)), *_cold_rows(starts)],
        notes=(
            f"Engine {engine.version}; the interpreter in the image is the one that runs the process driver",
            "warm: one server with both drivers, in turn; median (least-most) of the rounds, p50 and p99",
            f"cold: first call of a never-run function, {options.fresh} of each kind, in turn, p50 and p95",
            f"{POOLED}: {POOL} containers are ready; {NOTHING}: pool_size = 0",
            f"{BARE}: made and started without the platform, until the Engine says that it runs",
        ),
        targets=list(_targets(pairs, starts)),
        samples={"warm": [dataclasses.asdict(pair) for pair in pairs], "cold_seconds": starts},
    )


@contextlib.contextmanager
def _platform(engine: engines.Engine, directory: pathlib.Path, pool: int) -> Iterator[peers.Platform]:
    directory.mkdir()
    configuration = (
        "[orchestrator]\nenabled = process, docker\ndefault = process\n"
        f"[orchestrator_docker]\nurl = {engine.url}\npool_size = {pool}\n"
    )
    ours = peers.Platform(directory, configuration)
    try:
        yield ours
    finally:
        ours.stop()
        engine.remove_workers(ours.owner)  # they outlive their server


# -- warm ----------------------------------------------------------------------------------------------------


def _pair(ours: peers.Platform, runtime: str, connections: int, options: Options) -> Pair:
    process, container = ours.new_request(peers.CPU), ours.new_request(peers.CPU, runtime_id=runtime)
    for request in (process, container):
        load.run(request, connections, SETTLE)
    pair = Pair(connections, [], [])
    for _ in range(options.rounds):
        pair.processes.append(load.run(process, connections, options.seconds))
        pair.containers.append(load.run(container, connections, options.seconds))
    return pair


def _warm_rows(pair: Pair) -> Iterator[tuple[str, ...]]:
    for name, samples in (("process", pair.processes), ("docker", pair.containers)):
        yield (
            f"warm, {pair.connections} connections, {name}",
            report.spread([each.rate for each in samples], digits=0),
            report.spread([each.p50 for each in samples], 1e3),
            report.spread([each.p99 for each in samples], 1e3),
        )
    yield (f"warm, {pair.connections} connections, ratio", "", report.spread(pair.ratios), "")


# -- cold ----------------------------------------------------------------------------------------------------


def _pooled_starts(ours: peers.Platform, runtime: str, count: int) -> dict[str, list[float]]:
    """Seconds of first calls, by kind, in turn."""
    starts: dict[str, list[float]] = {PROCESS: [], POOLED: []}
    for _ in range(count):
        for kind, runtime_id in ((PROCESS, ours.runtime_id), (POOLED, runtime)):
            starts[kind].append(_first_call(ours, runtime_id, runtime, POOL))
    return starts


def _other_starts(ours: peers.Platform, engine: engines.Engine, count: int) -> dict[str, list[float]]:
    runtime = ours.new_runtime(engines.IMAGE, "docker")
    starts: dict[str, list[float]] = {NOTHING: [], BARE: []}
    for _ in range(count):
        starts[NOTHING].append(_first_call(ours, runtime, runtime, 0))
        starts[BARE].append(engine.bare_start())
    return starts


def _first_call(ours: peers.Platform, runtime_id: str, docker_runtime: str, waiting: int) -> float:
    """Seconds of the first call of a new function, once containers of earlier ones are gone."""
    package = packages.of_text("main.py", cold.TRIVIAL)
    function_id = ours.api.create_function(runtime_id, package, "main.main", cpu=peers.CPU)
    _wait_for_pool(ours, docker_runtime, waiting)
    started = time.perf_counter()
    ours.api.run(function_id)
    elapsed = time.perf_counter() - started
    ours.api.call("DELETE", f"/v1/functions/{function_id}")
    return elapsed


def _wait_for_pool(ours: peers.Platform, runtime: str, size: int) -> None:
    until = time.monotonic() + peers.START_DEADLINE
    path, full = f"/v1/runtimes/{runtime}/pool", {"total": size, "available": size}
    while (capacity := ours.api.call("GET", path)["capacity"]) != full:
        assert time.monotonic() < until, f"the pool of containers does not become {full}: {capacity}"
        time.sleep(0.05)
    time.sleep(QUIET)


def _cold_rows(starts: dict[str, list[float]]) -> Iterator[tuple[str, ...]]:
    for kind, values in starts.items():
        yield (f"cold, {kind}", "", *(f"{report.percentile(values, each) * 1e3:.1f}" for each in (50, 95)))


def _targets(pairs: list[Pair], starts: dict[str, list[float]]) -> Iterator[report.Target]:
    for pair in pairs:
        name = f"docker to process, warm, c={pair.connections}: p50, ratio"
        yield report.Target(name, statistics.median(pair.ratios), RATIO_TARGET, "x")
    pooled = report.percentile(starts[POOLED], 50) * 1e3
    yield report.Target(f"cold start, {POOLED}: p50", pooled, COLD_TARGET, "ms")
