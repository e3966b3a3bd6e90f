"""The queue: what is claimed next, what is due again, and what is settled without being run.

An asynchronous execution is ``queued``, then ``running`` on the server that claimed it, then settled;
between two attempts it is ``delayed``.  A claim carries the server and the number of the attempt, and
whatever ends an attempt names both, so that of two who believe that it is theirs one writes nothing.

All times are the database's: how wrong the clocks of servers are makes no difference.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from funcplat.core import retries
from funcplat.core.executions import UNSETTLED, Record
from funcplat.core.tallies import Tallies
from funcplat.core.turns import Lane, Turns
from funcplat.db import models
from funcplat.db.session import Database, micros
from funcplat.errors import Reason, ReasonCode

LOG = logging.getLogger(__name__)
T = models.executions
C = models.cancellations
D = models.dead_letters
BATCH = 500
"""Rows that one transaction changes at most, so that others need not wait for long."""
CANCELLED = Reason(ReasonCode.CANCELLED, "it was cancelled")
CANCELLED_OUTPUT = "Function execution cancelled."


@dataclasses.dataclass(frozen=True, slots=True)
class QueueOptions:
    """How the queue is worked off; see [engine]."""

    retries: retries.RetryOptions
    per_function: int = 32  # executions of one function that one engine runs at once


class Queue:
    """One server's view of the queue.  Thread-safe, but for `claim`: one thread at a time."""

    def __init__(self, db: Database, server_id: str, tallies: Tallies, options: QueueOptions) -> None:
        self._db = db
        self._server_id = server_id
        self._tallies = tallies
        self._options = options
        self._turns = Turns(options.per_function)

    # -- claims --------------------------------------------------------------------------------------------

    def claim(self, room: int, running: Iterable[Lane] = ()) -> list[Record]:
        """Take up to ``room`` executions that are due; they are this server's now.

        ``running``: the lane of each that it runs already.
        """
        with self._db.read() as connection:
            ids = self._turns.choose(connection, room, running)
        if not ids:
            return []
        # All or none: what was claimed by a call that then failed would never be run.
        # Not durable: a claim that the machine's end undoes leaves the execution queued, as it was.
        with self._db.write(durable=False) as connection:
            return self._take(connection, ids)

    def _take(self, connection: sa.Connection, ids: list[str]) -> list[Record]:
        rows = list(connection.execute(_CLAIMABLE, {"ids": ids}))
        if rows:
            values = {"ids": [row.id for row in rows], "server": self._server_id}
            connection.execute(_CLAIM, values)
        return [self._record(row) for row in rows]

    def _record(self, row: Any) -> Record:
        values = {"status": "running", "attempt": row.attempt + 1, "server_id": self._server_id}
        return Record(**(dict(row._mapping) | values), inserted=True, counted=True)

    # -- attempts that ended -------------------------------------------------------------------------------

    def judge(self, record: Record) -> None:
        """Decide what becomes of an asynchronous execution whose attempt has ended; not written yet."""
        if record.status == "success":
            return
        verdict = retries.judge(
            retries.Failed(
                record.status,
                record.reason_code,
                record.attempt,
                record.losses or 0,
                record.failures or 0,
                record.retry,
            ),
            self._options.retries,
        )
        record.losses, record.failures, record.dead = verdict.losses, verdict.failures, verdict.dead
        if verdict.delay is not None:
            record.status, record.result, record.delay = "delayed", None, verdict.delay

    def promote(self) -> int:
        """Queue what is due again; returns how many.  One that shall be cancelled never begins again."""
        cancelled = sa.exists().where(C.c.execution_id == T.c.id)
        due = sa.and_(_still("delayed"), T.c.due_at <= models.now(), ~cancelled)
        with self._db.read() as connection:
            ids = list(
                connection.execute(
                    sa.select(T.c.id).where(UNSETTLED, T.c.status == "delayed", due).limit(BATCH)
                ).scalars()
            )
        if not ids:
            return 0
        with self._db.write(durable=False) as connection:
            query = sa.select(T.c.id).where(T.c.id.in_(ids), due).order_by(T.c.id)
            ids = list(connection.execute(query.with_for_update(skip_locked=True)).scalars())
            connection.execute(sa.update(T).where(T.c.id.in_(ids)).values(status="queued"))
        return len(ids)

    def release(self) -> int:
        """At the end of this server: queue again what it claimed and did not finish; returns how many."""
        where = sa.and_(
            UNSETTLED, T.c.status == "running", T.c.server_id == self._server_id, T.c.sync.is_(False)
        )
        # One that shall be cancelled must not begin again.
        cancelled = sa.exists().where(C.c.execution_id == T.c.id)
        values = {
            "status": sa.case((cancelled, "delayed"), else_="queued"),
            "server_id": None,
            "due_at": models.now(),
        }
        with self._db.write() as connection:
            return int(connection.execute(sa.update(T).where(where).values(values)).rowcount)

    # -- ends without an attempt ---------------------------------------------------------------------------

    def expire(self) -> int:
        """End what has waited for longer than its maximum age; returns how many."""
        old = sa.and_(_still("queued", "delayed"), T.c.expires_at <= models.now())
        with self._db.read() as connection:
            ids = list(
                connection.execute(
                    sa.select(T.c.id)
                    .where(UNSETTLED, T.c.status.in_(("queued", "delayed")), old)
                    .limit(BATCH)
                ).scalars()
            )
        if not ids:
            return 0
        with self._db.write() as connection:
            ids = _locked(connection, ids, old)
            reason = Reason(
                ReasonCode.EXPIRED, "it waited for longer than its maximum age ([engine] max_age)"
            )
            self._end(connection, ids, "error", reason, dead=True)
        for execution_id in ids:
            LOG.warning("execution %s: it waited for too long", execution_id)
        return len(ids)

    def cancellations(self) -> list[str]:
        """Ids of what this server runs and shall not; what nobody runs is ended here and now."""
        query = sa.select(C.c.execution_id, T.c.status, T.c.server_id).select_from(
            C.outerjoin(T, T.c.id == C.c.execution_id)
        )
        with self._db.read() as connection:
            rows = list(connection.execute(query.limit(BATCH)))
        waiting = [row.execution_id for row in rows if row.status in ("queued", "delayed")]
        settled = [row.execution_id for row in rows if row.status not in models.UNFINISHED]
        if waiting or settled:
            with self._db.write() as connection:
                self.cancel_waiting(connection, waiting)
                if settled:
                    connection.execute(sa.delete(C).where(C.c.execution_id.in_(settled)))
        return [r.execution_id for r in rows if r.status == "running" and r.server_id == self._server_id]

    def cancel_waiting(self, connection: sa.Connection, ids: list[str]) -> list[str]:
        """In the caller's transaction: end those that nobody runs; returns which."""
        ids = _locked(connection, ids, _still("queued", "delayed"))
        self._end(connection, ids, "failed", CANCELLED)
        return ids

    # -- what servers leave behind -------------------------------------------------------------------------

    def settle_lost(self) -> int:
        """Try again, or end, what runs on servers whose lease is over; returns how many."""
        server = models.servers
        alive = sa.select(server.c.id).where(server.c.lease_expires_at >= models.now())
        lost = sa.and_(
            _still("running"),
            T.c.server_id.not_in(alive),
            T.c.server_id != self._server_id,  # which lives, whatever others say
        )
        with self._db.read() as connection:
            ids = list(
                connection.execute(
                    sa.select(T.c.id).where(UNSETTLED, T.c.status == "running", lost).limit(BATCH)
                ).scalars()
            )
        if not ids:
            return 0
        with self._db.write() as connection:
            query = sa.select(T).where(T.c.id.in_(ids), lost).order_by(T.c.id)
            rows = list(connection.execute(query.with_for_update(skip_locked=True)))
            self._settle_rows(connection, rows)
        return len(rows)

    def _settle_rows(self, connection: sa.Connection, rows: Sequence[Any]) -> None:
        ends: dict[int, list[str]] = collections.defaultdict(list)  # losses, 0 for synchronous ones -> ids
        for row in rows:
            again = None if row.sync else self._again(connection, row)
            LOG.warning("execution %s: its server is gone: %s", row.id, again or "error")
            if again is None:
                ends[0 if row.sync else (row.losses or 0) + 1].append(row.id)
        for losses, ids in ends.items():
            self._end(connection, ids, "error", _lost(losses), dead=losses > 0, counted=losses > 0)

    def _again(self, connection: sa.Connection, row: Any) -> str | None:
        failed = retries.Failed(
            "error", ReasonCode.SERVER_LOST, row.attempt, row.losses or 0, row.failures or 0, row.retry
        )
        verdict = retries.judge(failed, self._options.retries)
        if verdict.delay is None:
            return None
        values = {
            "status": "delayed",
            "server_id": None,
            "due_at": models.now() + int(verdict.delay * 1e6),
            "losses": verdict.losses,
        }
        connection.execute(sa.update(T).where(T.c.id == row.id).values(values))
        return "delayed"

    def _end(
        self,
        connection: sa.Connection,
        ids: list[str],
        status: str,
        reason: Reason,
        dead: bool = False,
        counted: bool = True,
    ) -> None:
        """Settle executions whose rows are locked.  Not ``counted``: synchronous ones."""
        if not ids:
            return
        text = CANCELLED_OUTPUT if reason is CANCELLED else "Function execution failed."
        values = {
            "status": status,
            "result": json.dumps({"output": text}),
            "reason_code": reason.code,
            "reason_message": reason.message,
            "updated_at": micros(),
            "server_id": None,
        }
        connection.execute(sa.update(T).where(T.c.id.in_(ids)).values(values))
        if dead:
            letters = sa.select(T.c.id, T.c.project_id, models.now()).where(T.c.id.in_(ids))
            connection.execute(sa.insert(D).from_select(["execution_id", "project_id", "died_at"], letters))
        if counted:
            self._tallies.add(connection, **{status: len(ids)})


def _still(*statuses: str) -> sa.ColumnElement[bool]:
    """Of rows that are looked up by their ids: a condition that no database takes an index for.

    # PERF(still): statistics are never fresh enough for a queue. With them SQLite and PostgreSQL may read
    # all of it, to find a dozen of ids.
    """
    return sa.func.coalesce(T.c.status, "").in_(statuses)


# PERF(once): made once, since to make them takes as long as to run them.
_CLAIMABLE = (
    sa.select(T)
    .where(T.c.id.in_(sa.bindparam("ids", expanding=True)), _still("queued"))
    .order_by(T.c.due_at)
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    sa.update(T)
    .where(T.c.id.in_(sa.bindparam("ids", expanding=True)))
    .values(status="running", attempt=T.c.attempt + 1, server_id=sa.bindparam("server"))
)


def _locked(connection: sa.Connection, ids: list[str], where: sa.ColumnElement[bool]) -> list[str]:
    """Those of ``ids`` for which the condition holds, theirs until the transaction ends."""
    query = sa.select(T.c.id).where(T.c.id.in_(ids), where).order_by(T.c.id).with_for_update()
    return list(connection.execute(query).scalars()) if ids else []


def _lost(losses: int) -> Reason:
    return Reason(
        ReasonCode.SERVER_LOST,
        "the server that ran it went away"
        + (f" at each of its {losses} attempts ([engine] max_attempts)" if losses > 1 else "")
        + "; whether the function ran to its end is unknown",
    )
