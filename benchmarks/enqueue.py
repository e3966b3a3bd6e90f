"""Durable acceptance of asynchronous executions, and how fast the queue is worked off."""

from __future__ import annotations

import dataclasses
import time

from benchmarks import load, peers, report
from benchmarks.arguments import Options

CONNECTIONS = (8, 32)
LOOK = 0.02
"""Seconds between looks into the database while the queue is worked off."""
DRAIN_DEADLINE = 600.0
UNFINISHED = "status IN ('queued', 'delayed', 'running')"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A sample of accepted executions, and the seconds from the last one until all had ended."""

    sample: load.Sample
    left: int  # executions that had not ended when the load stopped
    drain: float  # seconds

    @property
    def drained(self) -> float:
        """Executions per second after the load."""
        return self.left / self.drain if self.drain else 0.0


def measure(ours: peers.Platform, options: Options) -> report.Section:
    request = ours.new_request(peers.CPU, sync=False)
    rounds = [
        {count: _measure(ours, request, count, options.seconds) for count in CONNECTIONS}
        for _ in range(options.rounds)
    ]
    return report.Section(
        "queue",
        "Asynchronous calls: durable acceptance (synchronous = FULL), then the queue's end",
        ("c", "accepted/s", "p50 ms", "p99 ms", "left in queue", "worked off in s", "executions/s"),
        [(str(count), *_cells([each[count] for each in rounds])) for count in CONNECTIONS],
        notes=(
            "median (least-most) of the rounds; every execution ended with success",
            "the engine works while calls are accepted: what is left when the load stops is worked off then",
        ),
        samples=[[dataclasses.asdict(measured) for measured in each.values()] for each in rounds],
    )


def _measure(ours: peers.Platform, request: load.Request, connections: int, seconds: float) -> Measured:
    before = ours.executions("status = 'success'")
    sample = load.run(request, connections, seconds)
    left = ours.executions(UNFINISHED)
    started = time.perf_counter()
    while ours.executions(UNFINISHED):
        if time.perf_counter() - started > DRAIN_DEADLINE:
            raise load.WrongAnswers(f"the queue is not worked off after {DRAIN_DEADLINE:g} s")
        time.sleep(LOOK)  # the benchmark is told nothing: it reads the database from outside
    drain = time.perf_counter() - started
    succeeded = ours.executions("status = 'success'") - before
    if succeeded < sample.requests:
        raise load.WrongAnswers(f"{sample.requests} executions accepted, {succeeded} ended with success")
    return Measured(sample, left, drain)


def _cells(measured: list[Measured]) -> list[str]:
    return [
        report.spread([each.sample.rate for each in measured], digits=0),
        report.spread([each.sample.p50 for each in measured], 1e3),
        report.spread([each.sample.p99 for each in measured], 1e3),
        report.spread([float(each.left) for each in measured], digits=0),
        report.spread([each.drain for each in measured]),
        report.spread([each.drained for each in measured], digits=0),
    ]
