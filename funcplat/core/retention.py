"""Retention: executions that ended long ago are deleted, and before that the large ones of their logs.

Ids of executions begin with the time at which they were made, so that old ones are found along the primary
key, and no index is kept for it, which every call would have to pay for.  Ages are by the database's clock;
an end is of the clock of the server that wrote it, which is near enough for days.

Dead letters are nobody's to delete but whose they are, and what has not ended is never touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from funcplat.core.executions import first_id
from funcplat.db import models
from funcplat.db.session import Database

T = models.executions
D = models.dead_letters
BATCH = 100
"""Rows that one transaction changes at most: with logs of a mebibyte it still takes little time."""
LATE = 2 * 86400 * 1_000_000
"""Microseconds after an execution was made, within which nearly all end; see `_Sweep`."""
DELETED_LOG = b"(This log was deleted when its time was over: [retention] logs.)\n"
_ENDED = sa.and_(
    T.c.status.not_in(models.UNFINISHED),
    ~sa.exists().where(D.c.execution_id == T.c.id),
)
_LONGER = sa.func.length(T.c.log) > len(DELETED_LOG)
"""Shorter ones are not worth a sentence; and a log that was replaced is not found again."""


@dataclasses.dataclass(frozen=True, slots=True)
class RetentionOptions:
    """What [retention] says: seconds after the end of an execution, 0 for ever."""

    executions: float
    logs: float


class Retention:
    """Deletes what is old, a batch at a time.  One thread at a time; any number of servers."""

    def __init__(self, db: Database, clock: sa.ColumnElement[int], options: RetentionOptions) -> None:
        """``clock``: SQL that gives the time in microseconds."""
        self._sweeps = [
            _Sweep(db, clock, age, which, change, keeps)
            for age, which, change, keeps in (
                (options.executions, _ENDED, _delete, False),
                (options.logs, sa.and_(_ENDED, _LONGER), _shorten, True),
            )
            if age
        ]

    def sweep(self) -> int:
        """Delete one batch of each kind; returns how many rows were changed, 0 when nothing is left to do."""
        return sum([each.step() for each in self._sweeps])


class _Sweep:
    """Rows that meet a condition for long enough, in the order of their ids, which is that of their age.

    Where the change leaves the rows (``keeps``), a round begins where the last one was, but for `LATE`:
    else each would read every row that there is.  One that ended later than that is found by the first round
    after a start, or goes with its execution.
    """

    def __init__(
        self,
        db: Database,
        clock: sa.ColumnElement[int],
        age: float,
        which: sa.ColumnElement[bool],
        change: Callable[[sa.Connection, list[str]], None],
        keeps: bool,
    ) -> None:
        self._db = db
        self._clock = clock
        self._age = int(age * 1e6)
        self._which = which
        self._change = change
        self._keeps = keeps
        self._start = self._after = ""

    def step(self) -> int:
        with self._db.read() as connection:
            before = connection.execute(sa.select(self._clock)).scalar_one() - self._age
            which = sa.and_(self._which, sa.func.coalesce(T.c.updated_at, T.c.created_at) < before)
            found = sa.and_(T.c.id > self._after, T.c.id < first_id(before), which)
            ids = _ids(connection, sa.select(T.c.id).where(found).order_by(T.c.id).limit(BATCH))
        if not ids:
            self._start = self._after = self._next_start(before)
            return 0
        with self._db.write(durable=False) as connection:
            # Others may be at the same rows, or have redriven one.
            same = sa.select(T.c.id).where(T.c.id.in_(ids), which).order_by(T.c.id)
            locked = _ids(connection, same.with_for_update(skip_locked=True))
            if locked:
                self._change(connection, locked)
        self._after = ids[-1]
        return len(ids)

    def _next_start(self, before: int) -> str:
        return max(self._start, first_id(before - LATE)) if self._keeps else ""


def _ids(connection: sa.Connection, query: Any) -> list[str]:
    return list(connection.execute(query).scalars())


def _delete(connection: sa.Connection, ids: list[str]) -> None:
    connection.execute(sa.delete(T).where(T.c.id.in_(ids)))


def _shorten(connection: sa.Connection, ids: list[str]) -> None:
    connection.execute(sa.update(T).where(T.c.id.in_(ids)).values(log=DELETED_LOG))
