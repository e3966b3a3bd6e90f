"""Warm synchronous calls, beside the same function served by functions-framework."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator

from benchmarks import load, peers, processes, report
from benchmarks.arguments import Options

CONNECTIONS = (1, 8, 32)
DEFAULT_CPU = 100
CAPPED_CONNECTIONS = 8
RATE_TARGET, LATENCY_TARGET = 3.0, 0.9
SETTLE = 1.0
"""Seconds of load on each peer before the first round of a pair."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """A sample, and the processor time of the peer's processes for each request of it."""

    sample: load.Sample
    cpu: float  # seconds per request


@dataclasses.dataclass(frozen=True)
class Pair:
    """The samples of one number of connections, in turn: ours, theirs, ours, …"""

    cpu: int  # millicores of our function
    connections: int
    ours: list[Measured]
    theirs: list[Measured]

    def ratios(self, value: Callable[[Measured], float]) -> list[float]:
        """Ours to theirs, round by round."""
        return [value(a) / value(b) for a, b in zip(self.ours, self.theirs, strict=True)]


def measure(ours: peers.Platform, theirs: peers.Framework, options: Options) -> report.Section:
    request, capped = ours.new_request(peers.CPU), ours.new_request(DEFAULT_CPU)
    pairs = [_pair(ours, theirs, request, peers.CPU, count, options) for count in CONNECTIONS]
    pairs.append(_pair(ours, theirs, capped, DEFAULT_CPU, CAPPED_CONNECTIONS, options))
    return report.Section(
        "warm",
        "Warm synchronous calls (POST /v1/executions, durable record, tokens, isolation)",
        ("c  peer", "requests/s", "p50 ms", "p99 ms", "CPU us/request"),
        [row for pair in pairs for row in _rows(pair)],
        notes=(
            "median (least-most) of the rounds; ratios are made round by round, ours to theirs",
            "CPU: processor time of all processes of the peer, without the load generator's",
            "every answer was checked, and every call is a record in the database",
            f"last pair, the default {DEFAULT_CPU} millicores: the quota caps each worker (10 ms in 100)",
        ),
        targets=list(_targets(pairs)),
        samples=[dataclasses.asdict(pair) for pair in pairs],
    )


def _pair(
    ours: peers.Platform,
    theirs: peers.Framework,
    request: load.Request,
    cpu: int,
    connections: int,
    options: Options,
) -> Pair:
    load.run(request, connections, SETTLE)
    load.run(theirs.request(), connections, SETTLE)
    pair = Pair(cpu, connections, [], [])
    for _ in range(options.rounds):
        before = ours.executions()
        pair.ours.append(_measure(ours.pid, request, connections, options.seconds))
        _check_records(ours, before, pair.ours[-1].sample)
        pair.theirs.append(_measure(theirs.pid, theirs.request(), connections, options.seconds))
    return pair


def _measure(pid: int, request: load.Request, connections: int, seconds: float) -> Measured:
    before = processes.cpu_seconds(pid)
    sample = load.run(request, connections, seconds)
    return Measured(sample, (processes.cpu_seconds(pid) - before) / sample.requests)


def _check_records(ours: peers.Platform, before: int, sample: load.Sample) -> None:
    recorded = ours.executions() - before
    # The generator hangs up at the end: calls under way then are recorded and not counted by it.
    if not sample.requests <= recorded <= sample.requests + 2 * sample.connections:
        raise load.WrongAnswers(f"{sample.requests} answers, but {recorded} records in the database")


def _rows(pair: Pair) -> Iterator[tuple[str, ...]]:
    cap = "" if pair.cpu == peers.CPU else f", {pair.cpu} millicores"
    for name, measured in ((f"funcplat{cap}", pair.ours), ("functions-framework", pair.theirs)):
        yield (
            f"{pair.connections:<2} {name}",
            report.spread([each.sample.rate for each in measured], digits=0),
            report.spread([each.sample.p50 for each in measured], 1e3),
            report.spread([each.sample.p99 for each in measured], 1e3),
            report.spread([each.cpu for each in measured], 1e6, 0),
        )
    yield (
        "   ratio",
        report.spread(pair.ratios(lambda each: each.sample.rate)),
        report.spread(pair.ratios(lambda each: each.sample.p50)),
        report.spread(pair.ratios(lambda each: each.sample.p99)),
        report.spread(pair.ratios(lambda each: each.cpu)),
    )


def _targets(pairs: list[Pair]) -> Iterator[report.Target]:
    for pair in pairs:
        if pair.cpu != peers.CPU:
            continue
        if pair.connections == 1:
            ratio = statistics.median(pair.ratios(lambda each: each.sample.p50))
            yield report.Target("warm call, c=1: p50, ratio", ratio, LATENCY_TARGET, "x")
        else:
            ratio = statistics.median(pair.ratios(lambda each: each.sample.rate))
            name = f"warm calls, c={pair.connections}: requests/s, ratio"
            yield report.Target(name, ratio, RATE_TARGET, "x", at_least=True)
