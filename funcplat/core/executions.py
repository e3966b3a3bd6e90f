"""Executions: calls of functions, and what became of them.

A synchronous execution is one row, written when it ends; only one that runs longer than a second gets a row
before.  An asynchronous one is queued (durably) before its caller hears of it, then claimed, then
finished; a claim carries the server and a number, so that nobody else can finish it.
The rows of a moment are written together (`funcplat.core.recording`).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import time
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import listing as listings
from funcplat.db import models
from funcplat.db.session import Database, micros
from funcplat.errors import Reason, ReasonCode

LOG = logging.getLogger(__name__)
T = models.executions
FILTERS = ("function_id", "status", "description")
UNFINISHED = ("queued", "running")
# The condition of the partial index, word for word: SQLite uses the index for nothing else.
_UNSETTLED = T.c.status.in_([sa.literal_column(f"'{status}'") for status in UNFINISHED])


@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """An execution as callers see it.  Times in microseconds since the epoch."""

    id: str
    function_id: str
    function_version: int | None
    function_alias: str | None
    description: str | None
    status: str  # queued, running, success, failed, error
    sync: bool
    input: str | None  # JSON text
    result: str | None  # JSON text
    reason_code: str | None
    reason_message: str | None
    project_id: str
    created_at: int
    updated_at: int | None


@dataclasses.dataclass(slots=True)
class Record:
    """What the hot path knows of one execution; written as one row, once or twice."""

    id: str
    function_id: str
    function_version: int
    function_alias: str | None
    description: str | None
    status: str
    sync: bool
    input: str | None
    result: str | None
    reason_code: str | None
    reason_message: str | None
    project_id: str
    worker_id: str | None
    attempt: int
    server_id: str | None
    created_at: int
    updated_at: int | None
    log: bytes | None = None
    inserted: bool = False  # a row exists already: it is updated, if this attempt still owns it
    counted: bool = False  # the function's count was raised already


class Executions:
    """What can be done with executions.  Thread-safe."""

    def __init__(self, db: Database, server_id: str, max_attempts: int) -> None:
        self._db = db
        self._server_id = server_id
        self._max_attempts = max_attempts

    # -- the queue ---------------------------------------------------------------------------------------

    def claim(self, limit: int) -> list[Record]:
        """Take up to ``limit`` queued executions, the oldest first; they are this server's now."""
        query = (
            sa.select(T)
            .where(_UNSETTLED, T.c.status == "queued")
            .order_by(T.c.created_at, T.c.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            if connection.execute(query.with_only_columns(T.c.id).limit(1)).first() is None:
                return []
        # All or none: what was claimed by a call that then failed would never be run.
        # Not durable: a claim that the machine's end undoes leaves the execution queued, as it was.
        with self._db.write(durable=False) as connection:
            rows = list(connection.execute(query.with_for_update(skip_locked=True)))
            return [record for row in rows if (record := self._claim(connection, row)) is not None]

    def _claim(self, connection: sa.Connection, row: Any) -> Record | None:
        where = sa.and_(T.c.id == row.id, T.c.status == "queued", T.c.attempt == row.attempt)
        values = {"status": "running", "attempt": row.attempt + 1, "server_id": self._server_id}
        if connection.execute(sa.update(T).where(where).values(values)).rowcount != 1:
            return None
        return Record(**(dict(row._mapping) | values), inserted=True, counted=True)

    # -- what callers ask for ------------------------------------------------------------------------------

    def list(self, identity: Identity, listing: listings.Listing) -> list[Any]:
        """Rows with the fields of `Execution`, in order.  Raises InvalidRequest for an unknown filter."""
        where = listings.list_scope(T, identity, listing)
        with self._db.read() as connection:
            return listings.page(connection, T, _COLUMNS, where, listing, {"status": _STATUS})

    def get(self, identity: Identity, execution_id: str) -> Execution:
        """Raises NotFound for one that does not exist or is another project's."""
        with self._db.read() as connection:
            return _visible(connection, identity, execution_id)

    def log(self, identity: Identity, execution_id: str) -> tuple[Execution, bytes]:
        """The execution and what its function wrote; of one that runs, nothing yet."""
        with self._db.read() as connection:
            execution = _visible(connection, identity, execution_id)
            log = connection.execute(sa.select(T.c.log).where(T.c.id == execution_id)).scalar()
        return execution, bytes(log or b"")

    def delete(self, identity: Identity, execution_id: str) -> None:
        """Delete the execution and its log; one that runs goes on, and its result is dropped."""
        with self._db.write() as connection:
            _visible(connection, identity, execution_id)
            connection.execute(sa.delete(T).where(T.c.id == execution_id))

    def release(self) -> int:
        """At the end of this server: queue again what it claimed and did not finish; returns how many."""
        where = sa.and_(
            _UNSETTLED, T.c.status == "running", T.c.server_id == self._server_id, T.c.sync.is_(False)
        )
        with self._db.write() as connection:
            released = sa.update(T).where(where).values(status="queued", server_id=None)
            return int(connection.execute(released).rowcount)

    # -- what servers leave behind -------------------------------------------------------------------------

    def settle_lost(self) -> int:
        """Requeue or end what runs on servers whose lease is over; returns how many."""
        server = models.servers
        alive = sa.select(server.c.id).where(server.c.lease_expires_at >= models.now())
        query = sa.select(T.c.id, T.c.sync, T.c.attempt, T.c.server_id).where(
            _UNSETTLED, T.c.status == "running", T.c.server_id.not_in(alive)
        )
        with self._db.read() as connection:
            rows = list(connection.execute(query))
        return sum(self._settle_lost(row) for row in rows)

    def _settle_lost(self, row: Any) -> int:
        where = sa.and_(
            T.c.id == row.id,
            T.c.status == "running",
            T.c.attempt == row.attempt,
            T.c.server_id == row.server_id,
        )
        requeue = not row.sync and row.attempt < self._max_attempts
        values = {"status": "queued", "server_id": None} if requeue else _lost(row)
        with self._db.write() as connection:
            changed: int = connection.execute(sa.update(T).where(where).values(values)).rowcount
        if changed:
            LOG.warning("execution %s: its server is gone: %s", row.id, values["status"])
        return changed


# Clients know no queue: what is accepted and not finished is running.
_STATUS = sa.case((T.c.status == "queued", "running"), else_=T.c.status)
_COLUMNS: list[sa.ColumnElement[Any]] = [T.c[field.name] for field in dataclasses.fields(Execution)]


def _lost(row: Any) -> dict[str, Any]:
    reason = Reason(
        ReasonCode.SERVER_LOST,
        "the server that ran it went away"
        + ("" if row.sync else f" at each of its {row.attempt} attempts ([engine] max_attempts)")
        + "; whether the function ran to its end is unknown",
    )
    return {
        "status": "error",
        "result": json.dumps({"output": "Function execution failed."}),
        "reason_code": reason.code,
        "reason_message": reason.message,
        "updated_at": micros(),
    }


def new_id() -> str:
    """An id that sorts by time: a UUID of version 4 whose first 48 bits are milliseconds since the epoch.

    # PERF(ids): rows and index entries of a moment lie side by side, so that a batch of records touches a
    # handful of pages where random ids touch one each (100 us a record in batches of 32, against 25).
    """
    # Unique, not secret: who may see an execution is decided by its project.
    value = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)
    text = f"{value & _RANDOM_BITS | _VERSION_BITS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_RANDOM_BITS = ~((0xF << 76) | (0x3 << 62))
_VERSION_BITS = (0x4 << 76) | (0x2 << 62)


def _visible(connection: sa.Connection, identity: Identity, execution_id: str) -> Execution:
    where = sa.and_(T.c.id == execution_id, listings.scope(T, identity))
    row = connection.execute(sa.select(*_COLUMNS).where(where)).first()
    if row is None:
        raise errors.NotFound(f"Execution not found [id={execution_id[:64]}]")
    return Execution(*row)
