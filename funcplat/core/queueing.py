"""Queueing executions within somebody's own transaction, so that both happen or neither.

The executions that callers ask for go another way, in batches: `funcplat.core.recording`.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import sqlalchemy as sa

from funcplat.core.executions import Record, new_id
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


def enqueue(connection: sa.Connection, records: Sequence[Record]) -> None:
    """Insert queued executions and count them; they are accepted when the transaction is committed."""
    if not records:
        return
    rows = [{column.name: getattr(record, column.name) for column in T.columns} for record in records]
    connection.execute(sa.insert(T), rows)
    counts = collections.Counter((each.function_id, each.function_version) for each in records)
    # In one order everywhere, so that two transactions cannot wait for each other's rows.
    for (function_id, version), number in sorted(counts.items()):
        _count(connection, function_id, version, number)


def _count(connection: sa.Connection, function_id: str, version: int, number: int) -> None:
    if version == 0:
        counted = sa.update(F).where(F.c.id == function_id).values(count=F.c.count + number)
    else:
        where = sa.and_(V.c.function_id == function_id, V.c.version_number == version)
        counted = sa.update(V).where(where).values(count=V.c.count + number)
    connection.execute(counted)
