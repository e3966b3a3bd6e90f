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
from funcplat.core import tallies
from funcplat.core.executions import Record
from funcplat.db import models
from funcplat.db.session import Database

LOG = logging.getLogger(__name__)
T = models.executions
F = models.functions
V = models.function_versions
D = models.dead_letters
_QUEUED = ("due_at", "expires_at", "losses", "failures", "retry")
"""Columns of asynchronous executions alone: to the others they are no cost."""
_QUEUED_ROW = tuple(column.name for column in T.columns)
_ROW = tuple(name for name in _QUEUED_ROW if name not in _QUEUED)
MAX_ROWS = 64
"""Rows of one INSERT on SQLite."""
ATTEMPTS = 3
"""How often a batch is tried whose connection was closed meanwhile, or that lost a deadlock."""
_FINISH = ("status", "result", "reason_code", "reason_message", "worker_id", "updated_at", "log")
_DELAY = (*_FINISH, "due_at", "losses", "failures")


class Busy(errors.DriverUnavailable):
    """Another transaction writes just now; nothing of the batch was written."""


class _NotCommitted(errors.DriverUnavailable):
    """The database does not answer; the batch can be written again, since its commit was not begun."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Statement:
    """SQL for the driver, and how its parameters are made of a record."""

    sql: str
    pick: Callable[[Any], Any]  # of a record: a tuple
    order: Callable[[Sequence[Any]], Any]  # of that tuple: what the driver takes

    @classmethod
    def of(cls, statement: Any, dialect: sa.Dialect, fields: Sequence[str], prefix: str = "b_") -> _Statement:
        """``fields`` are attributes of a record; each is the parameter of its name after ``prefix``."""
        names = [prefix + name for name in fields]
        compiled = statement.compile(dialect=dialect, column_keys=None if prefix else names)
        order = tuple(compiled.positiontup) if compiled.positional else None
        return cls(str(compiled), operator.attrgetter(*fields), _ordered(names, order))

    def values(self, record: Any) -> Any:
        return self.order(self.pick(record))


def _ordered(names: Sequence[str], order: tuple[str, ...] | None) -> Callable[[Sequence[Any]], Any]:
    if order is None:  # the driver takes names
        return lambda row: dict(zip(names, row, strict=True))
    if order == tuple(names):
        return lambda row: row
    return operator.itemgetter(*(names.index(name) for name in order))


@dataclasses.dataclass(frozen=True, slots=True)
class _Count:
    """A number to add somewhere."""

    id: Any
    number: int
    version: int = 0  # of a function


class Recording:
    """Writes batches on a connection of its own, one after the other.  Thread-safe."""

    def __init__(self, db: Database, waits: bool = True, shard: int = 0, max_age: float = 0.0) -> None:
        """Not ``waits``, for SQLite only: neither for other transactions nor for the disk; Busy instead.

        ``shard``: where asynchronous executions are counted; ``max_age``: theirs, in seconds, 0 for none.
        """
        self._db = db
        self._waits = waits
        self._shard = shard
        self._max_age = int(max_age * 1e6)
        self._connection: Any = None
        # Two threads on one sqlite3 connection that checks for none end the process.
        self._turn = threading.Lock()
        self._durable: bool | None = None
        dialect = db.engine.dialect
        self._insert = _Statement.of(sa.insert(T), dialect, _ROW, "")
        self._insert_queued = _Statement.of(sa.insert(T), dialect, _QUEUED_ROW, "")
        mine = ("id", "attempt", "server_id")
        self._finish = _Statement.of(_finish_statement(), dialect, (*mine, *_FINISH))
        self._delay = _Statement.of(_delay_statement(), dialect, (*mine, *_DELAY))
        self._bury = _Statement.of(_bury_statement(), dialect, ("id", "attempt", "due_at"))
        self._count = _Statement.of(_count_statement(), dialect, ("id", "number"))
        self._count_version = _Statement.of(_count_version_statement(), dialect, ("id", "version", "number"))
        self._tallies = {
            name: _Statement.of(_tally_statement(name), dialect, ("id", "number")) for name in tallies.NAMES
        }
        self._clock = str(sa.select(models.now()).compile(dialect=dialect))
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
            self._insert_rows(cursor, self._insert, [r for r in batch if not r.inserted and r.sync])
            self._run(cursor, self._finish, [r for r in batch if r.inserted and r.sync])
            # In one order everywhere, so that two servers cannot wait for each other's rows.
            rows = [
                _Count(function_id, number, version)
                for (function_id, version), number in sorted(counts.items())
            ]
            self._run(cursor, self._count, [row for row in rows if not row.version])
            self._run(cursor, self._count_version, [row for row in rows if row.version])
            if asynchronous := [record for record in batch if not record.sync]:
                self._write_asynchronous(cursor, asynchronous)

    def _write_asynchronous(self, cursor: Any, batch: list[Record]) -> None:
        cursor.execute(self._clock)
        now = int(cursor.fetchone()[0])
        for number, record in enumerate(batch):
            record.due_at = now + number + int(record.delay * 1e6)  # in the order in which they came
            if not record.inserted:
                record.expires_at = now + self._max_age if self._max_age else None
        queued = [record for record in batch if not record.inserted]
        ended = [record for record in batch if record.inserted]
        tally = {"accepted": len(queued)}
        self._insert_rows(cursor, self._insert_queued, queued)
        self._run(cursor, self._delay, [record for record in ended if record.status == "delayed"])
        for status in ("success", "failed", "error"):
            # What somebody else has ended meanwhile is not counted twice: the number is of rows.
            tally[status] = self._run(cursor, self._finish, [r for r in ended if r.status == status])
            tally[status] += sum(record.status == status for record in queued)
        self._run(cursor, self._bury, [record for record in ended if record.dead])
        # Last: other servers that count in this row wait for the commit from here on.
        for name, number in tally.items():
            if number:
                self._run(cursor, self._tallies[name], [_Count(self._shard, number)])

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _insert_rows(self, cursor: Any, statement: _Statement, records: list[Record]) -> None:
        if not self._db.is_sqlite:
            self._run(cursor, statement, records)  # these drivers make one statement of many rows
            return
        rows = [statement.values(record) for record in records]
        # PERF(rows): sqlite3 gives up the GIL at each step of a statement and then waits for the event loop
        # to give it back, so rows go in statements of 1, 2, 4 ... 64, few enough kinds to stay prepared.
        while rows:
            size = min(MAX_ROWS, 1 << (len(rows).bit_length() - 1))
            cursor.execute(_many(statement.sql, size), [value for row in rows[:size] for value in row])
            del rows[:size]

    def _run(self, cursor: Any, statement: _Statement, records: Sequence[Any]) -> int:
        """Run a statement for each; returns how many rows it changed in all."""
        if not records:
            return 0
        cursor.executemany(statement.sql, [statement.values(record) for record in records])
        return int(cursor.rowcount)

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


def _many(insert: str, size: int) -> str:
    head, values, row = insert.rpartition("VALUES ")
    return head + values + ", ".join([row] * size)


def _mine() -> Any:
    """The attempt is still this server's: nobody else has ended it, or begun another one."""
    return sa.and_(
        T.c.id == sa.bindparam("b_id"),
        T.c.status == sa.literal_column("'running'"),
        T.c.attempt == sa.bindparam("b_attempt"),
        T.c.server_id == sa.bindparam("b_server_id"),
    )


def _finish_statement() -> Any:
    return sa.update(T).where(_mine()).values({name: sa.bindparam(f"b_{name}") for name in _FINISH})


def _delay_statement() -> Any:
    values: dict[str, Any] = {name: sa.bindparam(f"b_{name}") for name in _DELAY}
    return sa.update(T).where(_mine()).values({**values, "server_id": sa.null()})


def _bury_statement() -> Any:
    """A dead letter of what this attempt, and no other, has ended; written again, it is there already."""
    mine = sa.and_(
        T.c.id == sa.bindparam("b_id"),
        T.c.attempt == sa.bindparam("b_attempt"),
        T.c.status.in_([sa.literal_column("'failed'"), sa.literal_column("'error'")]),
        ~sa.exists().where(D.c.execution_id == T.c.id),
    )
    letter = sa.select(T.c.id, T.c.project_id, sa.cast(sa.bindparam("b_due_at"), sa.BigInteger)).where(mine)
    return sa.insert(D).from_select(["execution_id", "project_id", "died_at"], letter)


def _count_statement() -> Any:
    return (
        sa.update(F).where(F.c.id == sa.bindparam("b_id")).values(count=F.c.count + sa.bindparam("b_number"))
    )


def _count_version_statement() -> Any:
    where = sa.and_(V.c.function_id == sa.bindparam("b_id"), V.c.version_number == sa.bindparam("b_version"))
    return sa.update(V).where(where).values(count=V.c.count + sa.bindparam("b_number"))


def _tally_statement(name: str) -> Any:
    added = {name: models.tallies.c[name] + sa.bindparam("b_number")}
    return sa.update(models.tallies).where(models.tallies.c.shard == sa.bindparam("b_id")).values(added)
