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
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
import tenacity

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.db import models
from funcplat.db.session import Database

LOG = logging.getLogger(__name__)
T = models.executions
F = models.functions
V = models.function_versions
_ROW = tuple(column.name for column in T.columns)
MAX_ROWS = 64
"""Rows of one INSERT on SQLite."""
ATTEMPTS = 3
"""How often a batch is tried whose connection was closed meanwhile, or that lost a deadlock."""
_FINISH = ("status", "result", "reason_code", "reason_message", "worker_id", "updated_at", "log")


class Busy(errors.DriverUnavailable):
    """Another transaction writes just now; nothing of the batch was written."""


class _NotCommitted(errors.DriverUnavailable):
    """The database does not answer; the batch can be written again, since its commit was not begun."""


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
    """Writes batches on a connection of its own, one after the other.  Thread-safe."""

    def __init__(self, db: Database, waits: bool = True) -> None:
        """Not ``waits``, for SQLite only: neither for other transactions nor for the disk; Busy instead."""
        self._db = db
        self._waits = waits
        self._connection: Any = None
        # Two threads on one sqlite3 connection that checks for none end the process.
        self._turn = threading.Lock()
        self._durable: bool | None = None
        dialect = db.engine.dialect
        insert = _Statement.of(sa.insert(T), dialect, _ROW)
        finish = _Statement.of(_finish_statement(), dialect, ())
        count = _Statement.of(_count_statement(), dialect, ())
        count_version = _Statement.of(_count_version_statement(), dialect, ())
        finish_names = ("b_id", "b_attempt", "b_server", *(f"b_{name}" for name in _FINISH))
        self._insert = insert.sql, operator.attrgetter(*_ROW), insert.values(_ROW)
        self._finish = (
            finish.sql,
            operator.attrgetter("id", "attempt", "server_id", *_FINISH),
            finish.values(finish_names),
        )
        self._count = count.sql, count.values(("b_id", "b_number"))
        self._count_version = count_version.sql, count_version.values(("b_id", "b_version", "b_number"))
        self._retried = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_NotCommitted),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random(0.0, 0.05),
            reraise=True,
        )

    def write(self, batch: Sequence[Record], durable: bool) -> None:
        """Write a batch in one transaction: new rows, ends of older rows, counts.

        Raises DriverUnavailable where the database does not answer (Busy if this one does not wait),
        DriverError where it refuses.
        """
        with self._turn:
            try:
                self._write(batch, durable)
            except _NotCommitted:
                for attempt in self._retried.copy():
                    with attempt:
                        self._write(batch, durable)
        for record in batch:
            record.inserted = record.counted = True

    def _write(self, batch: Sequence[Record], durable: bool) -> None:
        counts = collections.Counter(
            (record.function_id, record.function_version) for record in batch if not record.counted
        )
        with self._transaction(durable) as cursor:
            self._insert_rows(cursor, [r for r in batch if not r.inserted])
            self._run(cursor, self._finish, [r for r in batch if r.inserted])
            # In one order everywhere, so that two servers cannot wait for each other's rows.
            rows = [(*key, number) for key, number in sorted(counts.items())]
            if functions := [(key, number) for key, version, number in rows if not version]:
                sql, order = self._count
                cursor.executemany(sql, [order(row) for row in functions])
            if versions := [row for row in rows if row[1]]:
                sql, order = self._count_version
                cursor.executemany(sql, [order(row) for row in versions])

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _insert_rows(self, cursor: Any, records: list[Record]) -> None:
        if not self._db.is_sqlite:
            self._run(cursor, self._insert, records)  # these drivers make one statement of many rows
            return
        _, pick, order = self._insert
        rows = [order(pick(record)) for record in records]
        # PERF(rows): sqlite3 gives up the GIL at each step of a statement and then waits for the event loop
        # to give it back, so rows go in statements of 1, 2, 4 ... 64, few enough kinds to stay prepared.
        while rows:
            size = min(MAX_ROWS, 1 << (len(rows).bit_length() - 1))
            cursor.execute(self._inserts(size), [value for row in rows[:size] for value in row])
            del rows[:size]

    def _inserts(self, size: int) -> str:
        head, values, row = self._insert[0].rpartition("VALUES ")
        return head + values + ", ".join([row] * size)

    def _run(self, cursor: Any, statement: Any, records: list[Record]) -> None:
        if records:
            sql, pick, order = statement
            cursor.executemany(sql, [order(pick(record)) for record in records])

    @contextlib.contextmanager
    def _transaction(self, durable: bool) -> Iterator[Any]:
        dbapi = self._db.engine.dialect.loaded_dbapi
        committing = done = False
        try:
            yield self._begin(durable)
            committing = True
            self._connection.commit()
            done = True
        except (dbapi.OperationalError, dbapi.InterfaceError, sa.exc.TimeoutError) as error:
            kind = errors.DriverUnavailable
            if not committing and not (self._db.is_sqlite and self._waits):
                kind = _NotCommitted if self._waits else Busy
            raise kind(f"the database did not take a batch of records: {error}") from error
        except (dbapi.Error, ValueError, OverflowError) as error:
            # Not only the database refuses values: text that is not Unicode does not get that far.
            raise errors.DriverError(f"the database did not take a batch of records: {error}") from error
        finally:
            if not done:
                self._discard()

    def _begin(self, durable: bool) -> Any:
        if self._connection is None:
            self._connection = self._connect()
            self._durable = None  # whoever had it before may have left it either way
        cursor = self._connection.cursor()
        if self._db.is_sqlite:
            if durable != self._durable:
                cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            cursor.execute("BEGIN IMMEDIATE")
        return cursor

    def _connect(self) -> Any:
        connection = self._db.engine.raw_connection()
        if not self._waits:
            connection.detach()  # nobody else shall get it with these settings
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 0")
            # Moving the log into the file waits for the disk: those connections do it that may wait.
            cursor.execute("PRAGMA wal_autocheckpoint = 0")
            cursor.close()
        return connection

    def _discard(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # The error at hand may keep the cursor alive, and with it a transaction that was not rolled back.
        with contextlib.suppress(self._db.engine.dialect.loaded_dbapi.Error):
            connection.rollback()
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


def _count_version_statement() -> Any:
    where = sa.and_(V.c.function_id == sa.bindparam("b_id"), V.c.version_number == sa.bindparam("b_version"))
    return sa.update(V).where(where).values(count=V.c.count + sa.bindparam("b_number"))
