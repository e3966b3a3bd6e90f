"""Writing batches of execution records: the one place that speaks to the database's driver directly.

# PERF(raw): SQLAlchemy compiles the statements once; running them on the DBAPI connection itself costs a
# batch of one 60 us instead of 350 us, and this is on the path of every call.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.db import models
from funcplat.db.session import Database

LOG = logging.getLogger(__name__)
T = models.executions
F = models.functions
_ROW = tuple(column.name for column in T.columns)
_FINISH = ("status", "result", "reason_code", "reason_message", "worker_id", "updated_at", "log")


@dataclasses.dataclass(frozen=True, slots=True)
class _Statement:
    """SQL for the driver, and how to order its parameters."""

    sql: str
    order: tuple[str, ...] | None  # None: the driver takes names

    @classmethod
    def of(cls, statement: Any, dialect: sa.Dialect, names: Sequence[str]) -> _Statement:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        return cls(str(compiled), tuple(compiled.positiontup) if compiled.positional else None)

    def values(self, names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
        """Turns a tuple of ``names``' values into what the driver takes."""
        if self.order is None:
            return lambda row: dict(zip(names, row, strict=True))
        if self.order == tuple(names):
            return lambda row: row
        return operator.itemgetter(*(list(names).index(name) for name in self.order))


class Recording:
    """Writes batches on a connection of its own.  Belongs to one thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: Any = None
        self._durable = True
        dialect = db.engine.dialect
        insert = _Statement.of(sa.insert(T), dialect, _ROW)
        finish = _Statement.of(_finish_statement(), dialect, ())
        count = _Statement.of(_count_statement(), dialect, ())
        finish_names = ("b_id", "b_attempt", "b_server", *(f"b_{name}" for name in _FINISH))
        self._insert = insert.sql, operator.attrgetter(*_ROW), insert.values(_ROW)
        self._finish = (
            finish.sql,
            operator.attrgetter("id", "attempt", "server_id", *_FINISH),
            finish.values(finish_names),
        )
        self._count = count.sql, count.values(("b_id", "b_number"))

    def write(self, batch: Sequence[Record], durable: bool) -> None:
        """Write a batch in one transaction: new rows, ends of older rows, counts.

        Raises DriverUnavailable where the database does not answer, DriverError where it refuses.
        """
        counts = collections.Counter(record.function_id for record in batch if not record.counted)
        with self._transaction(durable) as cursor:
            self._run(cursor, self._insert, [r for r in batch if not r.inserted])
            self._run(cursor, self._finish, [r for r in batch if r.inserted])
            if counts:
                sql, order = self._count
                # In one order everywhere, so that two servers cannot wait for each other's rows.
                cursor.executemany(sql, [order(pair) for pair in sorted(counts.items())])
        for record in batch:
            record.inserted = record.counted = True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run(self, cursor: Any, statement: Any, records: list[Record]) -> None:
        if records:
            sql, pick, order = statement
            cursor.executemany(sql, [order(pick(record)) for record in records])

    @contextlib.contextmanager
    def _transaction(self, durable: bool) -> Iterator[Any]:
        dbapi = self._db.engine.dialect.loaded_dbapi
        try:
            cursor = self._begin(durable)
            yield cursor
            self._connection.commit()
        except dbapi.Error as error:
            self._discard()
            unavailable = isinstance(error, dbapi.OperationalError | dbapi.InterfaceError)
            kind = errors.DriverUnavailable if unavailable else errors.DriverError
            raise kind(f"the database did not take a batch of records: {error}") from error

    def _begin(self, durable: bool) -> Any:
        if self._connection is None:
            self._connection = self._db.engine.raw_connection()
            self._durable = True
        cursor = self._connection.cursor()
        if self._db.is_sqlite:
            if durable != self._durable:
                cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            cursor.execute("BEGIN IMMEDIATE")
        return cursor

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()


def _finish_statement() -> Any:
    return (
        sa.update(T)
        .where(
            T.c.id == sa.bindparam("b_id"),
            T.c.status == sa.literal_column("'running'"),
            T.c.attempt == sa.bindparam("b_attempt"),
            T.c.server_id == sa.bindparam("b_server"),
        )
        .values({name: sa.bindparam(f"b_{name}") for name in _FINISH})
    )


def _count_statement() -> Any:
    return (
        sa.update(F).where(F.c.id == sa.bindparam("b_id")).values(count=F.c.count + sa.bindparam("b_number"))
    )
