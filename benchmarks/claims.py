"""What a claim costs while 100,000 executions wait, on each database."""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator

from benchmarks import report
from funcplat.core.executions import Record, new_id
from funcplat.core.queue import Queue, QueueOptions
from funcplat.core.recording import Recording
from funcplat.core.retries import RetryOptions
from funcplat.core.tallies import Tallies
from funcplat.db import session

WAITING = 100_000
BATCH = 500
CLAIMS = 200
ROOM = 16
LANES = ((1, 1), (100, 10))
"""Projects, and functions of each."""


def measure(databases: tuple[str, ...]) -> report.Section:
    rows = [row for name in databases for lanes in LANES for row in _measure(name, *lanes)]
    return report.Section(
        "claims",
        f"Claims of {ROOM} executions while {WAITING} wait; insertion of those in batches of {BATCH}",
        ("database", "projects x functions", "claim ms p50", "p99", "a row ms", "inserted/s"),
        rows,
        notes=("a claim: whose turn it is, the rows, their change; one connection each",),
        samples=rows,
    )


def _measure(name: str, projects: int, functions: int) -> Iterator[tuple[str, ...]]:
    with _database(name) as db:
        server_id = str(uuid.uuid4())
        began = time.perf_counter()
        _fill(db, projects, functions)
        inserted = WAITING / (time.perf_counter() - began)
        queue = Queue(db, server_id, Tallies(db, server_id), QueueOptions(RetryOptions()))
        times, claimed = [], 0
        for _ in range(CLAIMS):
            began = time.perf_counter()
            claimed += len(queue.claim(ROOM))
            times.append(time.perf_counter() - began)
        assert claimed, "nothing was claimed"
        yield (
            name,
            f"{projects} x {functions}",
            f"{statistics.median(times) * 1e3:.2f}",
            f"{report.percentile(times, 99) * 1e3:.2f}",
            f"{sum(times) / claimed * 1e3:.3f}",
            f"{inserted:.0f}",
        )


def _fill(db: session.Database, projects: int, functions: int) -> None:
    lanes = [(f"project {p}", str(uuid.uuid4())) for p in range(projects) for _ in range(functions)]
    with contextlib.closing(Recording(db)) as recording:
        for start in range(0, WAITING, BATCH):
            batch = [_record(*lanes[number % len(lanes)]) for number in range(start, start + BATCH)]
            recording.write(batch, durable=True)


def _record(project_id: str, function_id: str) -> Record:
    return Record(
        id=new_id(),
        function_id=function_id,
        function_version=0,
        function_alias=None,
        description=None,
        status="queued",
        sync=False,
        input='{"name": "load"}',
        result=None,
        reason_code=None,
        reason_message=None,
        project_id=project_id,
        worker_id=None,
        attempt=0,
        server_id=None,
        created_at=session.micros(),
        updated_at=None,
    )


@contextlib.contextmanager
def _database(name: str) -> Iterator[session.Database]:
    with contextlib.ExitStack() as stack:
        db = session.Database(stack.enter_context(url(name)))
        stack.callback(db.close)
        db.upgrade()
        yield db


@contextlib.contextmanager
def url(name: str) -> Iterator[str]:
    """An empty database: ``sqlite``, or of a server that the tests know how to start."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="funcplat-bench-") as directory:
            yield session.sqlite_url(pathlib.Path(directory) / "claims.sqlite")
        return
    from tests import services

    with services.database(name) as fixture:
        yield fixture.url
