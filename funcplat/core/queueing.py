"""Queueing executions within somebody's own transaction, so that both happen or neither.

The executions that callers ask for go another way, in batches: `funcplat.core.recording`.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import sqlalchemy as sa

from funcplat.core.executions import Record, new_id
from funcplat.core.tallies import Tallies
from funcplat.db import models
from funcplat.db.session import micros

T = models.executions
F = models.functions
V = models.function_versions


def queued(
    function_id: str,
    version: int,
    *,
    project_id: str,
    description: str,
    alias: str | None = None,
    text: str | None = None,
) -> Record:
    """An asynchronous execution to be run; ``text`` is its input."""
    return Record(
        id=new_id(),
        function_id=function_id,
        function_version=version,
        function_alias=alias,
        description=description,
        status="queued",
        sync=False,
        input=text,
        result=None,
        reason_code=None,
        reason_message=None,
        project_id=project_id,
        worker_id=None,
        attempt=0,
        server_id=None,
        created_at=micros(),
        updated_at=None,
    )


class Acceptance:
    """Accepts executions in transactions of others.  Thread-safe."""

    def __init__(self, tallies: Tallies, max_age: float) -> None:
        """``max_age``: of asynchronous ones, in seconds, 0 for none."""
        self._tallies = tallies
        self._max_age = int(max_age * 1e6)

    def enqueue(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        """Insert executions and count them; they are accepted when the transaction is committed.

        Synchronous ones are there as running.
        """
        if not records:
            return
        self._insert(connection, records)
        counts = collections.Counter((each.function_id, each.function_version) for each in records)
        # In one order everywhere, so that two transactions cannot wait for each other's rows.
        for (function_id, version), number in sorted(counts.items()):
            _count(connection, function_id, version, number)
        self._tallies.add(connection, accepted=sum(not record.sync for record in records))

    def _insert(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        now = connection.execute(sa.select(models.now())).scalar_one()
        for record in records:
            if not record.sync:
                record.due_at = now
                record.expires_at = now + self._max_age if self._max_age else None
        rows = [{column.name: getattr(record, column.name) for column in T.columns} for record in records]
        connection.execute(sa.insert(T), rows)


def _count(connection: sa.Connection, function_id: str, version: int, number: int) -> None:
    if version == 0:
        counted = sa.update(F).where(F.c.id == function_id).values(count=F.c.count + number)
    else:
        where = sa.and_(V.c.function_id == function_id, V.c.version_number == version)
        counted = sa.update(V).where(where).values(count=V.c.count + number)
    connection.execute(counted)
