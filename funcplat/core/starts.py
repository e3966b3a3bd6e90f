"""Starting workers, in the pattern intention (transaction), action (no transaction), outcome (transaction).

Capacity is the constraint UNIQUE(revision, slot): whoever inserts the row may start the worker.  A process
that dies between two steps leaves a row that is starting; `Workers.reap` settles it.
"""

from __future__ import annotations

import json
import logging
import pathlib
import secrets
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors, plugins
from funcplat.core import wire
from funcplat.core.images import Images
from funcplat.core.packagestore import PackageStore
from funcplat.core.workers import Worker, WorkerOptions, Workers
from funcplat.db import models
from funcplat.db.session import Database, repeated
from funcplat.drivers.base import Capability, Handle, WorkerSpec
from funcplat.errors import Reason, ReasonCode

LOG = logging.getLogger(__name__)
T = models.workers


class CapReached(errors.NoCapacity):
    """A cap on workers is reached."""

    code = "no_capacity"

    def __init__(self, kind: str, cap: int) -> None:
        self.kind = kind
        super().__init__(f"the cap of {cap} workers of this {kind} is reached ([scaling] max_workers…)")


class Starts:
    """Starts workers.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        orchestrators: Mapping[str, plugins.GuardedOrchestrator],
        store: PackageStore,
        images: Images,
        workers: Workers,
        options: WorkerOptions,
    ) -> None:
        self._db = db
        self._orchestrators = orchestrators
        self._store = store
        self._images = images
        self._workers = workers
        self._options = options

    def start(self, revision_id: str) -> Worker:
        """Start one more worker of a revision and return when it takes calls.

        Raises NoCapacity at a cap, NotFound for a revision that is gone or superseded, DriverError and
        WorkerError when it cannot be started; then nothing is left of it.
        """
        row = self.intend(revision_id)
        driver = self._orchestrators[row["orchestrator"]]
        handle: Handle | None = None
        worker: Worker | None = None
        try:
            handle = self._act(row, driver)
            worker = self._conclude(row, handle)
        finally:
            if worker is None:
                self._abandon(row["id"], driver, handle, sys.exception())
        LOG.info("worker %s: ready for function %s", worker.id, row["function_id"])
        return worker

    def prepare(self, revision_id: str) -> None:
        """Do beforehand what the first start of a revision would wait for on this machine."""
        with self._db.read() as connection:
            revision = _startable(connection, revision_id)
        if revision.image is not None:
            self._images.kind(self._images.runner(revision.orchestrator), revision.image)
            return
        driver = self._orchestrators.get(revision.orchestrator)
        if driver is not None and Capability.CODE_PATH in driver.capabilities:
            self._store.unpacked(revision.store, revision.digest)

    def check_room(self, revision_id: str, count: int) -> None:
        """Raise Conflict where the caps leave no room for ``count`` more workers of this revision."""
        with self._db.read() as connection:
            revision = _startable(connection, revision_id)
            for kind, cap, live in self._caps(connection, revision):
                if live + count > cap:
                    raise errors.Conflict(
                        f"{count} more workers are not possible: {live} of {cap} workers of this {kind} exist"
                    )

    @repeated
    def intend(self, revision_id: str) -> dict[str, Any]:
        """Take a slot: the values of the new worker's row, and the revision under "revision".

        Who took it must make it a worker or `Workers.settle` it.  Raises as `start`.
        """
        with self._db.write(durable=False) as connection:
            _lock(connection, revision_id)
            revision = _startable(connection, revision_id)
            orchestrator = revision.orchestrator
            if revision.image is not None:
                orchestrator = self._images.runner(orchestrator)
            if orchestrator not in self._orchestrators:
                raise errors.ImageUnknown(f"the orchestrator driver {orchestrator!r} is not enabled")
            slot = self._free_slot(connection, revision)
            row = {
                "id": str(uuid.uuid4()),
                "revision_id": revision_id,
                "slot": slot,
                "function_id": revision.function_id,
                "function_version": revision.version,
                "project_id": revision.project_id,
                "orchestrator": orchestrator,
                "server_id": self._options.server_id,
                "node": self._options.node,
                "state": "starting",
                "secret": secrets.token_hex(16),
                "concurrency": self._options.concurrency,
            }
            now = models.now()
            try:
                connection.execute(sa.insert(T).values(created_at=now, updated_at=now, used_at=now, **row))
            except sa.exc.IntegrityError as error:
                raise errors.Conflict("another server took this slot at the same moment") from error
        return row | {"revision": revision}

    def _free_slot(self, connection: sa.Connection, revision: Any) -> int:
        for kind, cap, live in self._caps(connection, revision):
            if live >= cap:
                raise CapReached(kind, cap)
        query = sa.select(T.c.slot).where(T.c.revision_id == revision.id, T.c.slot.is_not(None))
        taken = set(connection.execute(query).scalars())
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def _caps(self, connection: sa.Connection, revision: Any) -> list[tuple[str, int, int]]:
        """For function, project and node: the cap, and how many workers live under it."""
        options = self._options
        live = T.c.state != "deleted"
        kinds = (
            ("function", options.max_per_function, T.c.function_id == revision.function_id),
            ("project", options.max_per_project, T.c.project_id == revision.project_id),
            ("node", options.max_per_node, T.c.node == options.node),
        )
        counts = [sa.func.count(sa.case((where, 1))) for _, _, where in kinds]
        row = connection.execute(sa.select(*counts).where(live)).one()
        return [(kind, cap, row[place]) for place, (kind, cap, _) in enumerate(kinds)]

    def _act(self, row: Mapping[str, Any], driver: plugins.GuardedOrchestrator) -> Handle:
        started = time.monotonic()
        revision = row["revision"]
        by_path = Capability.CODE_PATH in driver.capabilities and revision.image is None
        path = self._store.unpacked(revision.store, revision.digest) if by_path else None
        spec = spec_of(row, self._options, path)
        handle = driver.start_worker(spec, self._options.start_deadline)
        try:
            self._load(row, handle, by_path, self._options.start_deadline - (time.monotonic() - started))
        except errors.FuncplatError:
            driver.stop_worker(handle, 0.0, self._options.start_deadline)
            raise
        return handle

    def _load(self, row: Mapping[str, Any], handle: Handle, by_path: bool, deadline: float) -> None:
        revision = row["revision"]
        body = {
            "secret": row["secret"],
            "entry": revision.entry,
            "concurrency": row["concurrency"],
            "path": handle.data.get("code", "/code") if by_path else None,
            "import_timeout": self._options.import_timeout,
            "max_result": self._options.max_result,
            "max_log": self._options.max_log,
            "environment": json.loads(revision.environment),
            "labels": {"function_id": row["function_id"], "function_version": row["function_version"]},
        }
        if by_path or revision.image is not None:
            wire.load(handle.address, body, (), 0, max(deadline, 1.0))
            return
        with self._store.open(revision.store, revision.digest) as chunks:
            wire.load(handle.address, body, chunks, revision.size, max(deadline, 1.0))

    @repeated
    def _conclude(self, row: Mapping[str, Any], handle: Handle) -> Worker:
        now = models.now()
        values = {"state": "ready", "handle": json.dumps(handle.to_json()), "updated_at": now, "used_at": now}
        where = sa.and_(T.c.id == row["id"], T.c.state == "starting")
        with self._db.write(durable=False) as connection:
            if connection.execute(sa.update(T).where(where).values(values)).rowcount != 1:
                raise errors.Conflict("the function was changed or detached while its worker started")
        return Worker(row["id"], row["revision_id"], handle, row["secret"], row["concurrency"])

    def _abandon(
        self,
        worker_id: str,
        driver: plugins.GuardedOrchestrator,
        handle: Handle | None,
        error: BaseException | None,
    ) -> None:
        LOG.warning("worker %s: not started: %s", worker_id, error)
        try:
            if handle is not None:
                driver.stop_worker(handle, 0.0, self._options.start_deadline)
        except errors.DriverError as problem:
            LOG.warning("worker %s: left to the reaper: %s", worker_id, problem)
        finally:
            self._workers.settle(worker_id, Reason(ReasonCode.START_FAILED, str(error)))


def spec_of(row: Mapping[str, Any], options: WorkerOptions, path: pathlib.Path | None) -> WorkerSpec:
    """What a driver is told of the worker whose slot `Starts.intend` took."""
    revision = row["revision"]
    return WorkerSpec(
        worker_id=row["id"],
        owner=options.owner,
        image=revision.image or revision.runtime_image,
        cpu=revision.cpu,
        memory=revision.memory_size,
        pids=options.pids,
        disk=options.disk,
        concurrency=row["concurrency"],
        code_path=path,
        carries_function=revision.image is not None,
        trusted=revision.trusted,
        labels={
            key: str(row[key]) for key in ("function_id", "function_version", "project_id", "revision_id")
        },
        environment=json.loads(revision.environment),
    )


def _lock(connection: sa.Connection, revision_id: str) -> None:
    # Starts of one revision take their slots one after another, and between the look at the revision and the
    # worker's row it is not superseded, nor its runtime upgraded.  (On SQLite the write lock does that.)
    revision, runtime = models.revisions, models.runtimes
    its_runtime = sa.select(revision.c.runtime_id).where(revision.c.id == revision_id).scalar_subquery()
    connection.execute(sa.select(runtime.c.id).where(runtime.c.id == its_runtime).with_for_update(read=True))
    connection.execute(sa.select(revision.c.id).where(revision.c.id == revision_id).with_for_update())


def _startable(connection: sa.Connection, revision_id: str) -> Any:
    revision, function, runtime, package = (
        models.revisions,
        models.functions,
        models.runtimes,
        models.packages,
    )
    query = (
        sa.select(revision, function.c.project_id, runtime.c.image.label("runtime_image"))
        # A function of an image is trusted like any, unless its runtime is not.
        .add_columns(sa.func.coalesce(runtime.c.trusted, sa.true()).label("trusted"))
        .add_columns(runtime.c.orchestrator, runtime.c.status, package.c.size)
        .join(function, function.c.id == revision.c.function_id)
        .outerjoin(runtime, runtime.c.id == revision.c.runtime_id)
        .outerjoin(
            package, sa.and_(package.c.digest == revision.c.digest, package.c.store == revision.c.store)
        )
        .where(revision.c.id == revision_id, revision.c.current.is_(True))
    )
    row = connection.execute(query).first()
    if row is None:
        raise errors.NotFound("the function was changed or deleted")
    if row.runtime_id is not None and row.status != "available":
        raise errors.RuntimeNotAvailable(f"Runtime {row.runtime_id} is not available.")
    return row
