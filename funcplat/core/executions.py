"""Executions: calls of functions, and what became of them.

A synchronous execution is one row, written when it ends; only one that runs longer than a second gets a row
before.  An asynchronous one is queued (durably) before its caller hears of it, then claimed, then
finished; a claim carries the server and a number, so that nobody else can finish it (`funcplat.core.queue`).
The rows of a moment are written together (`funcplat.core.recording`).
"""

from __future__ import annotations

import dataclasses
import random
import time
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import listing as listings
from funcplat.db import models
from funcplat.db.session import Database

T = models.executions
FILTERS = ("function_id", "status", "description")
UNFINISHED = models.UNFINISHED
# The condition of the partial index, word for word: SQLite uses the index for nothing else.
UNSETTLED = T.c.status.in_([sa.literal_column(f"'{status}'") for status in UNFINISHED])


@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """An execution as callers see it.  Times in microseconds since the epoch."""

    id: str
    function_id: str
    function_version: int | None
    function_alias: str | None
    description: str | None
    status: str  # queued, delayed, running, success, failed, error
    sync: bool
    input: str | None  # JSON text
    result: str | None  # JSON text
    reason_code: str | None
    reason_message: str | None
    project_id: str
    created_at: int
    updated_at: int | None
    attempt: int  # how often it was begun


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
    due_at: int | None = None  # as those below: of asynchronous ones
    expires_at: int | None = None
    losses: int | None = None
    failures: int | None = None
    retry: str | None = None
    delay: float = 0.0  # seconds until it is due, once it is written as delayed
    dead: bool = False  # a dead letter, once its end is written
    inserted: bool = False  # a row exists already: it is updated, if this attempt still owns it
    counted: bool = False  # the function's count was raised already


class Executions:
    """What can be done with executions.  Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, identity: Identity, listing: listings.Listing) -> list[Any]:
        """Rows with the fields of `Execution`, in order.  Raises InvalidRequest for an unknown filter."""
        where = listings.list_scope(T, identity, listing)
        with self._db.read() as connection:
            return listings.page(connection, T, COLUMNS, where, listing, {"status": STATUS})

    def get(self, identity: Identity, execution_id: str) -> Execution:
        """Raises NotFound for one that does not exist or is another project's."""
        with self._db.read() as connection:
            return visible(connection, identity, execution_id)

    def log(self, identity: Identity, execution_id: str) -> tuple[Execution, bytes]:
        """The execution and what its function wrote; of one that runs, nothing yet."""
        with self._db.read() as connection:
            execution = visible(connection, identity, execution_id)
            log = connection.execute(sa.select(T.c.log).where(T.c.id == execution_id)).scalar()
        return execution, bytes(log or b"")


# Clients know no queue: what is accepted and not finished is running.
STATUS = sa.case((T.c.status.in_(("queued", "delayed")), "running"), else_=T.c.status)
COLUMNS: list[sa.ColumnElement[Any]] = [T.c[field.name] for field in dataclasses.fields(Execution)]


def new_id() -> str:
    """An id that sorts by time: a UUID of version 4 whose first 48 bits are milliseconds since the epoch.

    # PERF(ids): rows and index entries of a moment lie side by side, so that a batch of records touches a
    # handful of pages where random ids touch one each (100 us a record in batches of 32, against 25).
    """
    # Unique, not secret: who may see an execution is decided by its project.
    value = (time.time_ns() // 1_000_000) << 80 | random.getrandbits(80)
    text = f"{value & _RANDOM_BITS | _VERSION_BITS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id(moment: int) -> str:
    """Sorts before the ids that are made from ``moment`` on, in microseconds, and after the earlier ones."""
    text = f"{max(0, moment) // 1000:012x}"
    return f"{text[:8]}-{text[8:]}"


_RANDOM_BITS = ~((0xF << 76) | (0x3 << 62))
_VERSION_BITS = (0x4 << 76) | (0x2 << 62)


def visible(connection: sa.Connection, identity: Identity, execution_id: str) -> Execution:
    """In the caller's transaction.  Raises NotFound for one that does not exist or is another project's."""
    where = sa.and_(T.c.id == execution_id, listings.scope(T, identity))
    row = connection.execute(sa.select(*COLUMNS).where(where)).first()
    if row is None:
        raise errors.NotFound(f"Execution not found [id={execution_id[:64]}]")
    return Execution(*row)
