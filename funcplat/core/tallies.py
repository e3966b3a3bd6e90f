"""Tallies: how many asynchronous executions were accepted, and what became of them.

They are counted in the transaction that changes the rows, and never derived from them, so that one who
compares them with the rows sees whether any was lost: accepted = queued + running + settled, at every moment.
A dead letter that is queued again is accepted once more.
"""

from __future__ import annotations

import dataclasses
import uuid

import sqlalchemy as sa

from funcplat.core.executions import UNSETTLED
from funcplat.db import models
from funcplat.db.session import Database

T = models.tallies
E = models.executions
NAMES = ("accepted", "success", "failed", "error", "deleted")


@dataclasses.dataclass(frozen=True, slots=True)
class Census:
    """Asynchronous executions at one moment.  The first five only ever grow."""

    accepted: int
    success: int
    failed: int
    error: int
    deleted: int  # before they ended
    queued: int
    delayed: int  # queued, and not due yet
    running: int
    dead: int  # of those that ended: dead letters that are kept

    @property
    def settled(self) -> int:
        return self.success + self.failed + self.error + self.deleted

    @property
    def holds(self) -> bool:
        """Whether none was lost or counted twice."""
        return self.accepted == self.queued + self.delayed + self.running + self.settled


class Tallies:
    """Counts.  Thread-safe."""

    def __init__(self, db: Database, server_id: str) -> None:
        self._db = db
        self.shard = shard_of(server_id)

    def add(self, connection: sa.Connection, **numbers: int) -> None:
        """In the caller's transaction, as its last statement: nobody waits for others while holding it."""
        values = {name: T.c[name] + number for name, number in numbers.items() if number}
        if values:
            connection.execute(sa.update(T).where(T.c.shard == self.shard).values(values))

    def read(self) -> Census:
        """All of one moment: one statement, since on some databases each sees a moment of its own."""
        sums = [sa.select(sa.func.sum(T.c[name])).scalar_subquery() for name in NAMES]
        rows = [_rows(status) for status in models.UNFINISHED]
        dead = sa.select(sa.func.count()).select_from(models.dead_letters).scalar_subquery()
        with self._db.read() as connection:
            found = connection.execute(sa.select(*sums, *rows, dead)).one()
        return Census(*(int(number or 0) for number in found))


def shard_of(server_id: str) -> int:
    """The row in which a server counts."""
    return uuid.UUID(server_id).int % models.SHARDS


def _rows(status: str) -> sa.ScalarSelect[int]:
    where = sa.and_(UNSETTLED, E.c.status == status)
    if status == "running":  # which the others never are; they need not be looked at themselves
        where = sa.and_(where, E.c.sync.is_(False))
    return sa.select(sa.func.count()).select_from(E).where(where).scalar_subquery()
