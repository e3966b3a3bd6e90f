"""Memory of the platform at rest and of workers at rest."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import peers, processes, report

WORKERS = 10
SETTLE = 2.0
"""Seconds after the last call before memory is looked at."""
MIB = 1024 * 1024
WORKER_TARGET, PLATFORM_TARGET = 3.0, 150.0
"""MiB."""


def measure(ours: peers.Platform) -> report.Section:
    """To be called first: a server that has worked hard keeps memory that it would not have at rest."""
    time.sleep(SETTLE)
    alone = _platform(ours)
    made = [ours.new_request(peers.CPU) for _ in range(WORKERS)]
    time.sleep(SETTLE)
    workers = [processes.pss_of_tree(pid) / MIB for pid in _workers(ours)]
    assert len(workers) == len(made), f"{len(workers)} workers for {len(made)} functions"
    with_workers = _platform(ours)
    mean = sum(workers) / len(workers)
    return report.Section(
        "memory",
        f"Memory (PSS, MiB), {WORKERS} workers alive",
        ("", "server", "zygote", "spares", "together"),
        [
            ("idle platform, no workers", *_cells(alone)),
            (f"idle platform beside {WORKERS} idle workers", *_cells(with_workers)),
            (f"an idle worker, mean of {WORKERS} (least-most)", *_worker_cells(workers, mean)),
        ],
        notes=(
            "PSS: private memory, and of shared memory the share; all processes of a worker are in it",
            "zygote: the process that workers are forked from; spares: workers-to-be, kept ready",
        ),
        targets=[
            report.Target("idle worker: PSS", mean, WORKER_TARGET, "MiB"),
            report.Target("idle platform without workers: PSS", sum(alone), PLATFORM_TARGET, "MiB"),
        ],
        samples={"platform_mib": alone, "platform_beside_workers_mib": with_workers, "workers_mib": workers},
    )


def _forked(ours: peers.Platform) -> Iterator[int]:
    """Processes below the zygotes: workers, and spares."""
    for zygote in processes.children(ours.pid):
        yield from processes.children(zygote)


def _workers(ours: peers.Platform) -> list[int]:
    # A worker has its handlers below it, a spare has nothing.
    return [pid for pid in _forked(ours) if len(processes.tree(pid)) > 1]


def _platform(ours: peers.Platform) -> list[float]:
    """MiB of the server, its zygotes and its spares."""
    zygotes = [processes.pss(pid) for pid in processes.children(ours.pid)]
    spares = [processes.pss(pid) for pid in _forked(ours) if len(processes.tree(pid)) == 1]
    return [processes.pss(ours.pid) / MIB, sum(zygotes) / MIB, sum(spares) / MIB]


def _cells(parts: list[float]) -> list[str]:
    return [f"{part:.1f}" for part in (*parts, sum(parts))]


def _worker_cells(workers: list[float], mean: float) -> list[str]:
    return ["", "", "", f"{mean:.2f} ({min(workers):.2f}-{max(workers):.2f})"]
