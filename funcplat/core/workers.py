"""Workers: found, drained and stopped, one row each.

A row goes one way: starting (`funcplat.core.starts`), ready, draining, deleted.  What a crash leaves behind
is found by `Workers.reap`, which compares the rows with what the drivers see.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors, plugins
from funcplat.auth.base import Identity
from funcplat.core import functions, wire
from funcplat.core.deaths import Deaths
from funcplat.db import models
from funcplat.db.session import Database, repeated
from funcplat.drivers.base import Address, Capability, Handle
from funcplat.errors import Reason, ReasonCode

LOG = logging.getLogger(__name__)
T = models.workers
ROOM_CANDIDATES = 20
"""Least recently used workers that are asked whether they are idle, when room is needed."""
START_STEPS = 10
"""Start deadlines after which a start that did not end is given up."""
DRAIN_DEADLINE = 1.0
"""Seconds that a worker may take to acknowledge that it drains."""


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """A worker that takes calls."""

    id: str
    revision_id: str
    handle: Handle
    secret: str
    concurrency: int


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What holds for all workers of this server."""

    owner: str  # id of the installation
    server_id: str
    node: str
    concurrency: int
    pids: int
    disk: int  # bytes
    import_timeout: float  # seconds
    max_result: int  # bytes
    max_log: int  # bytes
    max_per_function: int
    max_per_project: int
    max_per_node: int
    start_deadline: float  # seconds
    max_timeout: float  # seconds that an execution may take
    stop_grace: float  # seconds


class Workers:
    """Finds, drains and stops workers.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        orchestrators: Mapping[str, plugins.GuardedOrchestrator],
        options: WorkerOptions,
    ) -> None:
        self._db = db
        self._orchestrators = orchestrators
        self._options = options
        self._deaths = Deaths(orchestrators, options.start_deadline)

    # -- what routers need -----------------------------------------------------------------------------

    def ready(self, connection: sa.Connection, revision_id: str) -> list[Worker]:
        """The workers of a revision that can be called from this machine, oldest first."""
        query = (
            sa.select(T.c.id, T.c.revision_id, T.c.handle, T.c.secret, T.c.concurrency)
            .where(T.c.revision_id == revision_id, T.c.state == "ready")
            .where(sa.or_(T.c.node == self._options.node, T.c.orchestrator.in_(self._surviving())))
            .order_by(T.c.slot)
        )
        return [
            Worker(
                row.id, row.revision_id, Handle.from_json(json.loads(row.handle)), row.secret, row.concurrency
            )
            for row in connection.execute(query)
        ]

    def touch(self, worker_ids: list[str]) -> None:
        """Say that these workers were used just now."""
        with self._db.write(durable=False) as connection:
            connection.execute(sa.update(T).where(T.c.id.in_(worker_ids)).values(used_at=models.now()))

    # -- what operators ask for ------------------------------------------------------------------------

    def of(self, identity: Identity, function_id: str, version: int) -> list[Any]:
        """Rows of the workers of a function's version, with id, state, reason and times."""
        with self._db.read() as connection:
            functions.visible(connection, identity, function_id)
            query = (
                sa.select(T)
                .where(T.c.function_id == function_id, T.c.function_version == version)
                .where(T.c.state.in_(("starting", "ready", "draining")))
                .order_by(T.c.created_at, T.c.id)
            )
            return list(connection.execute(query))

    def check(self, identity: Identity, function_id: str, version: int) -> str:
        """The current revision of a visible function's version; NotFound otherwise."""
        with self._db.read() as connection:
            functions.visible(connection, identity, function_id)
            revision_id: str = functions.current_revision(connection, function_id, version).id
            return revision_id

    def scale_down(self, function_id: str, version: int, count: int) -> list[str]:
        """Drain ``count`` workers of the current revision, the least recently used first; one stays."""
        with self._db.read() as connection:
            revision = functions.current_revision(connection, function_id, version)
            # Those that start are listed, so they count; they go first, for nobody uses them yet.
            live = sa.and_(T.c.revision_id == revision.id, T.c.state.in_(("starting", "ready")))
            order = (T.c.state == "ready", T.c.used_at, T.c.id)
            ids = list(connection.execute(sa.select(T.c.id).where(live).order_by(*order)).scalars())
        surplus = ids[: min(count, max(0, len(ids) - 1))]
        return self.drain(T.c.id.in_(surplus), Reason(ReasonCode.SCALED_DOWN, "scaled down by an operator"))

    def detach(self, function_id: str, version: int) -> list[str]:
        """Drain every worker of a function's version."""
        where = sa.and_(T.c.function_id == function_id, T.c.function_version == version)
        return self.drain(where, Reason(ReasonCode.DETACHED, "detached by an operator"))

    def supersede(self, function_id: str, version: int) -> None:
        """Drain the workers of revisions that are no longer current; when it returns they refuse calls."""
        current = sa.select(models.revisions.c.id).where(models.revisions.c.current.is_(True))
        where = sa.and_(T.c.function_id == function_id, T.c.revision_id.not_in(current))
        self.drain(where, Reason(ReasonCode.SUPERSEDED, "the function was changed or deleted"))

    # -- the way down ----------------------------------------------------------------------------------

    def drain(self, where: sa.ColumnElement[bool], reason: Reason) -> list[str]:
        """Take workers from ready (or starting) to draining; those reached refuse calls when it returns."""
        where = sa.and_(where, T.c.state.in_(("starting", "ready")))
        with self._db.write(durable=False) as connection:
            # Locked: one that becomes ready between these statements would not be told.
            query = sa.select(T.c.id, T.c.handle, T.c.secret).where(where).order_by(T.c.id)
            rows = list(connection.execute(query.with_for_update()))
            ids = [row.id for row in rows]
            values = {"state": "draining", "updated_at": models.now(), **columns(reason)}
            connection.execute(sa.update(T).where(where, T.c.id.in_(ids)).values(values))
        for row in rows:
            LOG.info("worker %s: draining: %s", row.id, reason.message)
            self._tell(row)
        return ids

    def drain_idle(self, idle_timeout: float) -> list[str]:
        """Drain workers that no router used for ``idle_timeout`` seconds."""
        idle = T.c.used_at < models.now() - int(idle_timeout * 1_000_000)
        where = sa.and_(idle, T.c.state == "ready")
        return self.drain(where, Reason(ReasonCode.IDLE, f"idle for {idle_timeout:g} s"))

    def make_room(self, function_id: str, forget: Callable[[str], None]) -> bool:
        """At a cap: stop the least recently used worker of another function that is idle; False: none is.

        ``forget(worker_id)`` returns when this process's router sends no more calls to a worker.
        """
        query = (
            sa.select(T.c.id, T.c.handle)
            .where(T.c.state == "ready", T.c.function_id != function_id, self._mine())
            .where(T.c.node == self._options.node)
            .order_by(T.c.used_at)
            .limit(ROOM_CANDIDATES)
        )
        with self._db.read() as connection:
            rows = list(connection.execute(query))
        return any(self._is_idle(row) and self._give_way(row, forget) for row in rows)

    def _give_way(self, row: Any, forget: Callable[[str], None]) -> bool:
        reason = Reason(ReasonCode.SCALED_DOWN, "gave way to another function at the host's cap")
        self.drain(T.c.id == row.id, reason)
        forget(row.id)
        if not self._is_idle(row):
            return False  # a call came first; it ends in peace, and the worker then
        self.stop(row.id, grace=0.0)
        return True

    def stop(self, worker_id: str, grace: float) -> None:
        """Stop a draining worker and settle its row.  A second stop is a no-op."""
        orphaned = ~sa.exists().where(models.servers.c.id == T.c.server_id)
        query = sa.select(T.c.id, T.c.handle, T.c.orchestrator, T.c.reason_code, orphaned.label("orphaned"))
        with self._db.read() as connection:
            row = connection.execute(query.where(T.c.id == worker_id, T.c.state == "draining")).first()
        if row is None:
            return
        driver = self._orchestrators.get(row.orchestrator)
        reason = None
        if row.handle is not None and driver is not None:
            reason = self._autopsy(row)
            handle = Handle.from_json(json.loads(row.handle))
            driver.stop_worker(handle, grace, grace + self._options.start_deadline)
        elif row.orphaned and driver is not None and Capability.SURVIVES in driver.capabilities:
            # Its server died between asking for it and hearing of it: whatever is named after it goes.
            driver.stop_worker(Handle(worker_id, Address()), 0.0, self._options.start_deadline)
        self.settle(worker_id, reason)
        LOG.info("worker %s: stopped%s", worker_id, f": {reason.message}" if reason is not None else "")

    def _autopsy(self, row: Any) -> Reason | None:
        cause = None
        if row.reason_code == ReasonCode.WORKER_DIED:
            cause = self._deaths.cause(row.id, row.orchestrator)
        return Reason(ReasonCode.WORKER_DIED, f"the worker died: {cause}") if cause is not None else None

    def draining(self) -> list[Any]:
        """Rows of the workers that this server has to stop."""
        age = (models.now() - T.c.updated_at).label("age")  # microseconds
        query = sa.select(T.c.id, T.c.handle, age).where(T.c.state == "draining", self._mine())
        with self._db.read() as connection:
            return list(connection.execute(query))

    def drain_own(self) -> list[str]:
        """At the end of this server: drain the workers that would die with it."""
        return self.drain(self._own(), Reason(ReasonCode.WORKER_STOPPED, "its server ended"))

    def stop_own(self) -> None:
        """At the end of this server: stop the workers that would die with it, whatever they run."""
        self.drain_own()
        query = sa.select(T.c.id).where(self._own(), T.c.state == "draining")
        with self._db.read() as connection:
            ids = list(connection.execute(query).scalars())
        for worker_id in ids:
            self._try_stop(worker_id)

    def stop_drained(self, forgotten_after: float = 0.0) -> None:
        """Stop draining workers that have nothing to do any more, or whose grace is over.

        For ``forgotten_after`` seconds routers may still send calls, which the worker must live to refuse.
        """
        for row in self.draining():
            age = row.age / 1_000_000
            if age > self._options.stop_grace or (age >= forgotten_after and self._is_idle(row)):
                self._try_stop(row.id)

    def lost(self, worker_id: str) -> str | None:
        """A router found the worker gone: it takes no more calls.  Returns how it ended, if that is known."""
        self._drain_dead(worker_id)
        with self._db.read() as connection:
            row = connection.execute(sa.select(T.c.orchestrator).where(T.c.id == worker_id)).first()
        return self._deaths.awaited_cause(worker_id, row.orchestrator) if row is not None else None

    def _drain_dead(self, worker_id: str) -> None:
        reason = Reason(ReasonCode.WORKER_DIED, "the worker died or cannot be reached")
        self.drain(T.c.id == worker_id, reason)

    # -- reconciliation --------------------------------------------------------------------------------

    def reap(self) -> None:
        """Repair both ways: rows without a worker, workers without a row, workers of dead servers."""
        self.forget_dead()
        self._give_up_starts()
        for name, driver in self._orchestrators.items():
            try:
                self._reconcile(name, driver)
            except errors.DriverError as error:
                # The workers of one driver must not wait for another one.
                LOG.warning("the workers of driver %s cannot be looked at: %s", name, error)

    def _reconcile(self, name: str, driver: plugins.GuardedOrchestrator) -> None:
        # Rows first: one that is ready had its worker before the driver looks, so if it sees none it is gone.
        with self._db.read() as connection:
            rows = {row.id: row for row in connection.execute(self._rows_of(name, driver))}
        existing = {state.worker_id: state for state in driver.list_workers(self._options.start_deadline)}
        for worker_id, state in existing.items():
            if worker_id not in rows and not self._is_foreign(worker_id):
                LOG.warning("worker %s: stopped, no row knows it", worker_id)
                driver.stop_worker(state.handle, 0.0, self._options.start_deadline)
        for worker_id, row in rows.items():
            if (worker_id not in existing or not existing[worker_id].running) and row.state != "starting":
                self._bury(row)

    def forget_dead(self) -> None:
        """Settle what servers that are gone left: their workers died with them, or are drained by us."""
        alive = sa.select(models.servers.c.id)
        where = sa.and_(T.c.server_id.not_in(alive), T.c.state != "deleted")
        reason = Reason(ReasonCode.SERVER_LOST, "its server ended")
        died = sa.and_(where, T.c.orchestrator.not_in(self._surviving()))
        values = {"state": "deleted", "slot": None, "updated_at": models.now(), **columns(reason)}
        with self._db.write(durable=False) as connection:
            connection.execute(sa.update(T).where(died).values(values))
        self.drain(sa.and_(where, T.c.state == "starting"), reason)

    def _give_up_starts(self) -> None:
        # Every step of a start has its deadline, so that none lasts this long: its end was not recorded, as
        # happens when the database does not answer.  (A run of an image is a start for as long as it lasts.)
        limit = START_STEPS * self._options.start_deadline + self._options.max_timeout
        where = sa.and_(T.c.state == "starting", T.c.updated_at < models.now() - int(limit * 1_000_000))
        self.drain(where, Reason(ReasonCode.START_FAILED, f"it was not ready after {limit:g} s"))

    def purge(self, age: float) -> None:
        """Remove rows of workers that were deleted more than ``age`` seconds ago."""
        old = T.c.updated_at < models.now() - int(age * 1_000_000)
        with self._db.write(durable=False) as connection:
            connection.execute(sa.delete(T).where(T.c.state == "deleted", old))

    # -- inside ----------------------------------------------------------------------------------------

    def _own(self) -> sa.ColumnElement[bool]:
        return sa.and_(T.c.server_id == self._options.server_id, T.c.orchestrator.not_in(self._surviving()))

    def _mine(self) -> sa.ColumnElement[bool]:
        # Only the process that started it can stop a worker that dies with its server.
        return sa.or_(T.c.server_id == self._options.server_id, T.c.orchestrator.in_(self._surviving()))

    def _surviving(self) -> list[str]:
        return [n for n, d in self._orchestrators.items() if Capability.SURVIVES in d.capabilities]

    def _rows_of(self, name: str, driver: plugins.GuardedOrchestrator) -> sa.Select[Any]:
        query = sa.select(T).where(T.c.orchestrator == name, T.c.state != "deleted")
        if Capability.SURVIVES in driver.capabilities:
            return query
        return query.where(T.c.server_id == self._options.server_id)

    def _is_foreign(self, worker_id: str) -> bool:
        # Its row may have been inserted after the rows were read, or belong to another server of this node.
        with self._db.read() as connection:
            row = connection.execute(sa.select(T.c.state).where(T.c.id == worker_id)).first()
        return row is not None and row.state != "deleted"

    def _bury(self, row: Any) -> None:
        LOG.warning("worker %s: is gone", row.id)
        self._drain_dead(row.id)
        self._try_stop(row.id)

    def _try_stop(self, worker_id: str) -> None:
        """Stop a draining worker; the next round tries it again, and the other workers do not wait for it."""
        try:
            self.stop(worker_id, grace=0.0)
        except errors.DriverError as error:
            LOG.warning("worker %s: not stopped, to be tried again: %s", worker_id, error)

    @repeated
    def settle(self, worker_id: str, reason: Reason | None = None) -> None:
        """The worker exists no more: free its slot.  Idempotent."""
        values = {"state": "deleted", "slot": None, "updated_at": models.now()}
        values |= columns(reason) if reason is not None else {}
        with self._db.write(durable=False) as connection:
            connection.execute(sa.update(T).where(T.c.id == worker_id, T.c.state != "deleted").values(values))

    def _tell(self, row: Any) -> None:
        if row.handle is None:
            return
        try:
            wire.drain(Handle.from_json(json.loads(row.handle)).address, row.secret, DRAIN_DEADLINE)
        except errors.WorkerError as error:
            LOG.info("worker %s: could not be told to drain: %s", row.id, error.message)

    def _is_idle(self, row: Any) -> bool:
        if row.handle is None:
            return True
        try:
            return wire.busy(Handle.from_json(json.loads(row.handle)).address, DRAIN_DEADLINE) == 0
        except errors.WorkerError:
            return True  # nobody answers: nothing runs that anybody could still hear of


def columns(reason: Reason) -> dict[str, str]:
    return {"reason_code": reason.code, "reason_message": reason.message}
