"""What callers do to executions that exist: cancel, delete, queue dead letters again.

Every change names the state that it leaves, in one transaction with the tallies, so that who comes too late
changes nothing and is told so.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import listing as listings
from funcplat.core.executions import COLUMNS, STATUS, UNFINISHED, Execution, visible
from funcplat.core.queue import BATCH, Queue
from funcplat.core.tallies import Tallies
from funcplat.db import models
from funcplat.db.session import Database

T = models.executions
C = models.cancellations
D = models.dead_letters
LETTERS = sa.select(D.c.execution_id)


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Which of a project's dead letters."""

    ids: tuple[str, ...] | None = None  # None: all
    function_id: str | None = None
    reason: str | None = None  # a ReasonCode


class Interventions:
    """Changes of executions by callers.  Thread-safe."""

    def __init__(self, db: Database, queue: Queue, tallies: Tallies, max_age: float) -> None:
        """``max_age`` in seconds, 0 for none."""
        self._db = db
        self._queue = queue
        self._tallies = tallies
        self._max_age = int(max_age * 1e6)

    # -- one execution -------------------------------------------------------------------------------------

    def cancel(self, identity: Identity, execution_id: str) -> Execution:
        """One that waits ends here and now; one that runs ends when its server has heard of it.

        Returns the execution as it is then.  Cancelling twice is a no-op while it runs.  Raises NotFound, and
        Conflict where it has ended.
        """
        with self._db.write() as connection:
            found = _locked(connection, identity, execution_id)
            if found.status not in UNFINISHED:
                raise errors.Conflict(f"Execution {execution_id} has ended already: {found.status}.")
            if found.status == "running":
                self._ask(connection, execution_id)
            else:
                self._queue.cancel_waiting(connection, [execution_id])
            return visible(connection, identity, execution_id)

    def _ask(self, connection: sa.Connection, execution_id: str) -> None:
        asked = connection.execute(
            sa.select(C.c.execution_id).where(C.c.execution_id == execution_id)
        ).first()
        if asked is None:  # the execution's row is locked: nobody asks at the same time
            values = {"execution_id": execution_id, "requested_at": models.now()}
            connection.execute(sa.insert(C).values(values))

    def delete(self, identity: Identity, execution_id: str) -> None:
        """Delete the execution and its log; one that runs goes on, and its result is dropped."""
        with self._db.write() as connection:
            self._remove(connection, [_locked(connection, identity, execution_id)])

    def _remove(self, connection: sa.Connection, found: list[Execution]) -> None:
        ids = [each.id for each in found]
        connection.execute(sa.delete(T).where(T.c.id.in_(ids)))
        connection.execute(sa.delete(D).where(D.c.execution_id.in_(ids)))
        connection.execute(sa.delete(C).where(C.c.execution_id.in_(ids)))
        unfinished = sum(each.status in UNFINISHED and not each.sync for each in found)
        self._tallies.add(connection, deleted=unfinished)

    def redrive_one(self, identity: Identity, execution_id: str) -> Execution:
        """Queue a dead letter again.  Raises NotFound, and Conflict where it is none."""
        with self._db.write() as connection:
            _locked(connection, identity, execution_id)
            letter = connection.execute(LETTERS.where(D.c.execution_id == execution_id)).first()
            if letter is None:
                raise errors.Conflict(f"Execution {execution_id} is not a dead letter.")
            self._requeue(connection, [execution_id])
            return visible(connection, identity, execution_id)

    # -- dead letters ----------------------------------------------------------------------------------------

    def dead_letters(self, identity: Identity, listing: listings.Listing) -> list[Any]:
        """Rows with the fields of `Execution`, in order.  Raises InvalidRequest for an unknown filter."""
        where = sa.and_(T.c.id.in_(LETTERS), listings.list_scope(T, identity, listing))
        with self._db.read() as connection:
            return listings.page(connection, T, COLUMNS, where, listing, {"status": STATUS})

    def redrive(self, identity: Identity, selection: Selection) -> int:
        """Queue the caller's project's dead letters again; returns how many."""
        return self._each_batch(identity, selection, self._redrive_batch)

    def purge(self, identity: Identity, selection: Selection) -> int:
        """Delete the caller's project's dead letters with their executions; returns how many."""
        return self._each_batch(identity, selection, self._remove)

    def _redrive_batch(self, connection: sa.Connection, found: list[Execution]) -> None:
        self._requeue(connection, [each.id for each in found])

    def _each_batch(self, identity: Identity, selection: Selection, change: Any) -> int:
        # Not those that die while this goes on: what fails at once would be queued again for ever.
        with self._db.read() as connection:
            now = connection.execute(sa.select(models.now())).scalar_one()
        letters = LETTERS.where(D.c.project_id == identity.project_id, D.c.died_at <= now)
        query = sa.select(*COLUMNS).where(T.c.id.in_(letters), *_conditions(selection)).order_by(T.c.id)
        done = 0
        while True:
            with self._db.write() as connection:
                rows = connection.execute(query.limit(BATCH).with_for_update())
                found = [Execution(*row) for row in rows]
                if found:
                    change(connection, found)
            done += len(found)
            if len(found) < BATCH:
                return done

    def _requeue(self, connection: sa.Connection, ids: list[str]) -> None:
        """Dead letters whose rows are locked: as if they were new, but for the number of the attempt."""
        nothing = dict.fromkeys(
            ("result", "reason_code", "reason_message", "worker_id", "server_id", "updated_at", "log")
        )
        values = nothing | {
            "status": "queued",
            "due_at": models.now(),
            "expires_at": models.now() + self._max_age if self._max_age else None,
            "losses": 0,
            "failures": 0,
        }
        connection.execute(sa.update(T).where(T.c.id.in_(ids)).values(values))
        connection.execute(sa.delete(D).where(D.c.execution_id.in_(ids)))
        connection.execute(sa.delete(C).where(C.c.execution_id.in_(ids)))
        self._tallies.add(connection, accepted=len(ids))


def _locked(connection: sa.Connection, identity: Identity, execution_id: str) -> Execution:
    """The execution, which nobody else changes until the transaction ends."""
    where = sa.and_(T.c.id == execution_id, listings.scope(T, identity))
    row = connection.execute(sa.select(*COLUMNS).where(where).with_for_update()).first()
    if row is None:
        raise errors.NotFound(f"Execution not found [id={execution_id[:64]}]")
    return Execution(*row)


def _conditions(selection: Selection) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if selection.ids is not None:
        conditions.append(T.c.id.in_(selection.ids))
    if selection.function_id is not None:
        conditions.append(T.c.function_id == selection.function_id)
    if selection.reason is not None:
        conditions.append(T.c.reason_code == selection.reason)
    return conditions
