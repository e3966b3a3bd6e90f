"""Ticks of jobs: the moments at which they run.

A tick is made in one transaction, which moves the job on to its next tick and queues the execution: a crash
leaves both or none, and of any number of engines one does it, since the job's row is theirs in turn and
leaves the state that the change names.  What is due is a question to the database's clock.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.core import crons, inputs, queueing, targets
from funcplat.core.executions import Record
from funcplat.core.jobs import COLUMNS, Job
from funcplat.db import models
from funcplat.db.session import Database, micros
from funcplat.errors import Reason, ReasonCode

LOG = logging.getLogger(__name__)
T = models.jobs
BUSY_PAUSE = 0.05
"""Seconds until another look at jobs that another engine has."""


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """What one look at the jobs that are due came to."""

    made: int  # executions that were queued
    wait: float | None  # seconds until the next tick; 0: look again at once; None: nothing is known to come


class Ticks:
    """Makes ticks.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        clock: sa.ColumnElement[int],
        tolerance: float,
        max_input: int,
        acceptance: queueing.Acceptance,
    ) -> None:
        """``clock``: SQL that gives the time in microseconds.

        ``tolerance``: seconds after which a tick counts as missed; ``max_input`` in bytes.
        """
        self._db = db
        self._clock = clock
        self._tolerance = int(tolerance * crons.SECOND)
        self._max_input = max_input
        self._acceptance = acceptance

    def due(self, limit: int) -> list[str]:
        """Ids of jobs that are due, those that have been for longest first."""
        with self._db.read() as connection:
            query = self._due(self._now(connection), limit)
            return list(connection.execute(query.with_only_columns(T.c.id)).scalars())

    def make(self, limit: int, job_id: str | None = None) -> Round:
        """Make ticks of up to ``limit`` jobs that are due, or of this one alone.

        A job that cannot be run as it stands is paused with the reason.
        """
        wait = self._wait()
        if wait is None or wait > 0:
            return Round(0, wait)
        with self._db.write() as connection:
            now = self._now(connection)
            query = self._due(now, limit).with_for_update(skip_locked=True)
            if job_id is not None:
                query = query.where(T.c.id == job_id)
            due = [Job(*row) for row in connection.execute(query)]
            made = [record for job in due if (record := self._make(connection, job, now)) is not None]
            self._acceptance.enqueue(connection, made)
        # None of those that are due: another engine has them just now.
        return Round(len(made), 0.0 if due else BUSY_PAUSE)

    def suspend(self, job_id: str, message: str) -> None:
        """Pause a job whose tick could not be made for a reason that is a defect of the platform."""
        reason = Reason(ReasonCode.PLATFORM_ERROR, message)
        with self._db.write() as connection:
            where = sa.and_(T.c.id == job_id, T.c.status == "running")
            connection.execute(sa.update(T).where(where).values(_paused(reason)))

    def _wait(self) -> float | None:
        """Seconds until a job is due, at most 0 where one is; None where no job runs."""
        first = sa.select(sa.func.min(T.c.next_execution_time)).where(T.c.status == "running")
        with self._db.read() as connection:
            now, tick = self._now(connection), connection.execute(first).scalar()
        return None if tick is None else float((tick - now) / crons.SECOND)

    def _now(self, connection: sa.Connection) -> int:
        # As a value: a condition on a clock that goes on would not use the index.
        return int(connection.execute(sa.select(self._clock)).scalar_one())

    def _due(self, now: int, limit: int) -> Any:
        query = sa.select(*COLUMNS).where(T.c.status == "running", T.c.next_execution_time <= now)
        return query.order_by(T.c.next_execution_time, T.c.id).limit(limit)

    def _make(self, connection: sa.Connection, job: Job, now: int) -> Record | None:
        """The execution to queue, if there is one, once the job's row is moved on."""
        record = None
        try:
            record, values = self._tick(connection, job, now)
        except errors.NotFound as error:
            values = _paused(Reason(ReasonCode.TARGET_NOT_FOUND, error.message))
        except errors.RequestError as error:
            values = _paused(Reason(ReasonCode.JOB_INVALID, error.message))
        where = sa.and_(
            T.c.id == job.id, T.c.status == "running", T.c.next_execution_time == job.next_execution_time
        )
        if connection.execute(sa.update(T).where(where).values(values)).rowcount != 1:
            return None
        if values["status"] != "running":
            LOG.info("job %s: %s: %s", job.id, values["status"], values["reason_message"] or "its last tick")
        return record

    def _tick(self, connection: sa.Connection, job: Job, now: int) -> tuple[Record | None, dict[str, Any]]:
        missed = now - job.next_execution_time > self._tolerance
        runs = not missed or job.missed_ticks != "skip"
        left = job.count if job.count is None or not runs else job.count - 1
        following = None
        if job.pattern is not None and (left is None or left > 0):
            # From now on, not from the tick: all that were missed are one.
            following = crons.next_tick(job.pattern, job.time_zone, now)
        reason = _missed(job, now, runs) if missed else None
        values = {
            "status": "done" if following is None else "running",
            "count": left,
            "next_execution_time": job.next_execution_time if following is None else following,
            "reason_code": reason.code if reason else None,
            "reason_message": reason.message if reason else None,
            "updated_at": micros(),
        }
        return (self._record(connection, job) if runs else None), values

    def _record(self, connection: sa.Connection, job: Job) -> Record:
        found = targets.resolve(connection, job.project_id, job.reference)
        return queueing.queued(
            found.function_id,
            found.version,
            project_id=job.project_id,
            description=f"Created by Job {job.id}",
            alias=job.function_alias,
            text=inputs.normalised(job.function_input, self._max_input),
        )


def _missed(job: Job, now: int, runs: bool) -> Reason:
    late = (now - job.next_execution_time) // crons.SECOND
    what = "one run stands for all ticks since" if runs else "no tick since was run (missed_ticks is skip)"
    return Reason(
        ReasonCode.TICKS_MISSED, f"no engine made the tick that was due {late} seconds earlier; {what}"
    )


def _paused(reason: Reason) -> dict[str, Any]:
    return {
        "status": "paused",
        "reason_code": reason.code,
        "reason_message": reason.message,
        "updated_at": micros(),
    }
