"""Jobs: calls of a function at times that a cron pattern names, or once.

Their ticks are made by `funcplat.core.ticks`.  All times are of the database's clock.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import crons, inputs, references, targets
from funcplat.core import listing as listings
from funcplat.core.crons import SECOND
from funcplat.core.targets import Reference
from funcplat.db import models
from funcplat.db.session import Database, micros

LOG = logging.getLogger(__name__)
T = models.jobs
FILTERS = ("name", "status", "function_id")
AHEAD = 60
"""Seconds that a time which a caller gives must be in the future (API.md section 9)."""
MISSED_TICKS = ("once", "skip")
"""What becomes of ticks that nobody made in time: one run for all of them, or none."""
SETTABLE = ("running", "paused", "cancelled")


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """A job as callers see it.  Times in microseconds since the epoch."""

    id: str
    name: str | None
    function_id: str | None
    function_alias: str | None
    function_version: int | None
    function_input: str | None
    status: str  # running, paused, cancelled, done
    pattern: str | None  # None: it runs once
    count: int | None  # runs that are left; None: no end
    first_execution_time: int
    next_execution_time: int
    project_id: str
    created_at: int
    updated_at: int | None
    time_zone: str | None  # None: UTC
    missed_ticks: str
    reason_code: str | None
    reason_message: str | None

    @property
    def reference(self) -> Reference:
        return Reference(self.function_id, self.function_version, self.function_alias)


@dataclasses.dataclass(frozen=True, slots=True)
class NewJob:
    """What a caller gives to make a job.  None: the default."""

    reference: Reference
    name: str | None = None
    pattern: str | None = None
    time_zone: str | None = None
    first_execution_time: str | None = None
    count: int | None = None
    function_input: str | None = None
    missed_ticks: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What a caller changes.  None: stays."""

    name: str | None = None
    status: str | None = None
    pattern: str | None = None
    time_zone: str | None = None
    next_execution_time: str | None = None
    function_input: str | None = None
    missed_ticks: str | None = None


class Jobs:
    """What can be done with jobs.  Thread-safe."""

    def __init__(self, db: Database, clock: sa.ColumnElement[int], max_input: int) -> None:
        """``clock``: SQL that gives the time in microseconds; ``max_input`` in bytes."""
        self._db = db
        self._clock = clock
        self._max_input = max_input

    def create(self, identity: Identity, new: NewJob) -> Job:
        """Raises InvalidRequest, and NotFound for a target that the caller cannot call."""
        targets.check(new.reference)
        _check_missed_ticks(new.missed_ticks)
        inputs.normalised(new.function_input, self._max_input)
        values = {
            "id": str(uuid.uuid4()),
            "name": new.name,
            **_reference_values(new.reference),
            "function_input": new.function_input,
            "status": "running",
            "pattern": new.pattern or None,
            "time_zone": new.time_zone,
            "missed_ticks": new.missed_ticks or "once",
            **_first_times(new, self._now()),
            "project_id": identity.project_id,
            "created_at": micros(),
        }
        with self._db.write() as connection:
            targets.hold(connection, identity, new.reference, False, identity.project_id)
            connection.execute(sa.insert(T).values(values))
        LOG.info("job %s: created by project %s", values["id"], identity.project_id)
        return self.get(identity, values["id"])

    def list(self, identity: Identity, listing: listings.Listing) -> list[Job]:
        """Raises InvalidRequest for an unknown filter."""
        where = listings.list_scope(T, identity, listing)
        with self._db.read() as connection:
            return [Job(*row) for row in listings.page(connection, T, COLUMNS, where, listing)]

    def get(self, identity: Identity, job_id: str) -> Job:
        """Raises NotFound for one that does not exist or is another project's."""
        with self._db.read() as connection:
            return _visible(connection, identity, job_id)

    def update(self, identity: Identity, job_id: str, changes: Changes) -> Job:
        """Change, pause, resume or cancel the job.  Raises InvalidRequest, also for one that is over."""
        _check_missed_ticks(changes.missed_ticks)
        inputs.normalised(changes.function_input, self._max_input)
        with self._db.write() as connection:
            # An engine that makes a tick of it, or another change, comes before or after this one.
            connection.execute(sa.select(T.c.id).where(T.c.id == job_id).with_for_update())
            job = _visible(connection, identity, job_id)
            values = _changed_values(job, changes, connection.execute(sa.select(self._clock)).scalar_one())
            if values:
                changed = sa.update(T).where(T.c.id == job_id).values(**values, updated_at=micros())
                connection.execute(changed)
        if "status" in values:
            LOG.info("job %s: %s", job_id, values["status"])
        return self.get(identity, job_id)

    def delete(self, identity: Identity, job_id: str) -> None:
        """Delete the job; the executions that it made stay."""
        with self._db.write() as connection:
            _visible(connection, identity, job_id)
            connection.execute(sa.delete(T).where(T.c.id == job_id))
        LOG.info("job %s: deleted", job_id)

    def _now(self) -> int:
        with self._db.read() as connection:
            return int(connection.execute(sa.select(self._clock)).scalar_one())


COLUMNS: list[sa.ColumnElement[Any]] = [T.c[field.name] for field in dataclasses.fields(Job)]
"""The columns of `Job`, in order."""


def _visible(connection: sa.Connection, identity: Identity, job_id: str) -> Job:
    where = sa.and_(T.c.id == job_id, listings.scope(T, identity))
    row = connection.execute(sa.select(*COLUMNS).where(where)).first()
    if row is None:
        raise errors.NotFound(f"Job not found [id={job_id[:64]}]")
    return Job(*row)


def _reference_values(reference: Reference) -> dict[str, Any]:
    version = reference.function_version
    if version is None and reference.function_alias is None:
        version = 0
    return {**dataclasses.asdict(reference), "function_version": version}


def _check_missed_ticks(value: str | None) -> None:
    if value is not None and value not in MISSED_TICKS:
        raise errors.InvalidRequest(f"missed_ticks must be one of: {', '.join(MISSED_TICKS)}.")


# -- times ---------------------------------------------------------------------------------------------------


def _first_times(new: NewJob, now: int) -> dict[str, Any]:
    """When a new job runs first and next, and how often."""
    crons.tzinfo(new.time_zone)
    first, count = None, new.count
    if new.first_execution_time:
        first = _future("first_execution_time", new.first_execution_time, new.time_zone, now)
    if new.pattern:
        after = now if first is None else first - AHEAD * SECOND
        tick = _tick(new.pattern, new.time_zone, after)
    elif first is None:
        raise errors.InvalidRequest('Either "pattern" or "first_execution_time" must be specified.')
    elif count is not None and count > 1:
        raise errors.InvalidRequest("count over 1 needs a pattern: without one a job runs once.")
    else:
        tick, count = first, 1
    return {"first_execution_time": first or tick, "next_execution_time": tick, "count": count}


def _future(name: str, text: str, zone: str | None, now: int) -> int:
    time = crons.time_of(name, text, zone, now)
    if time < now + AHEAD * SECOND:
        raise errors.InvalidRequest(f"{name} must be at least {AHEAD} seconds in the future.")
    return time


def _tick(pattern: str, zone: str | None, after: int) -> int:
    tick = crons.next_tick(pattern, zone, after)
    if tick is None:
        raise errors.InvalidRequest(f"pattern {pattern[:64]!r} has no tick in the next 50 years.")
    return tick


# -- changes -------------------------------------------------------------------------------------------------


def _changed_values(job: Job, changes: Changes, now: int) -> dict[str, Any]:
    if job.status not in references.UNFINISHED:
        raise errors.InvalidRequest(f"Job {job.id} is {job.status} and can not be changed any more.")
    if changes.status is not None and changes.status not in SETTABLE:
        raise errors.InvalidRequest(f"status can be set to: {', '.join(SETTABLE)}.")
    _check_kind(job, changes.pattern)
    pattern, zone = changes.pattern or job.pattern, changes.time_zone or job.time_zone
    if pattern is not None and (changes.pattern or changes.time_zone):
        crons.check(pattern, zone)
    given = dataclasses.asdict(changes)
    values = {name: value for name, value in given.items() if value is not None and name in _TAKEN_AS_GIVEN}
    if changes.pattern:
        values["pattern"] = changes.pattern
    return values | _changed_times(job, changes, pattern, zone, now)


_TAKEN_AS_GIVEN = ("name", "status", "time_zone", "function_input", "missed_ticks")


def _check_kind(job: Job, pattern: str | None) -> None:
    if pattern is not None and bool(pattern) != (job.pattern is not None):
        raise errors.InvalidRequest("A job with a pattern and one that runs once can not become the other.")


def _changed_times(
    job: Job, changes: Changes, pattern: str | None, zone: str | None, now: int
) -> dict[str, Any]:
    resumed = changes.status == "running" and job.status == "paused"
    if changes.next_execution_time:
        tick = _future("next_execution_time", changes.next_execution_time, zone, now)
    elif not resumed:
        return {}
    elif pattern is not None:
        tick = _tick(pattern, zone, now)
    elif job.next_execution_time < now + AHEAD * SECOND:
        raise errors.InvalidRequest(
            "The time of the job is over: give a next_execution_time that is at least "
            f"{AHEAD} seconds in the future."
        )
    else:
        tick = job.next_execution_time
    # What kept it from running is to be tried again.
    return {"next_execution_time": tick, "reason_code": None, "reason_message": None}
