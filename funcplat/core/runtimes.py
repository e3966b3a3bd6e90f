"""Runtimes: language environments that functions are made for.

A request only changes a row: to creating, upgrading or deleting.  `Runtimes.settle`, called by
the engine, brings such rows to where they are going; it is idempotent, so that any engine may do it again.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors, plugins
from funcplat.auth.base import Identity
from funcplat.core import listing as listings
from funcplat.db import models
from funcplat.db.session import Database, micros
from funcplat.drivers.base import Capability

LOG = logging.getLogger(__name__)
T = models.runtimes
CHECK_DEADLINE = 30.0
"""Seconds that a driver may take to say whether it can run an image."""


@dataclasses.dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime as callers see it.  Times in microseconds since the epoch."""

    id: str
    name: str | None
    description: str | None
    image: str
    is_public: bool
    trusted: bool
    status: str  # creating, available, upgrading, error, deleting
    reason_code: str | None
    reason_message: str | None
    orchestrator: str
    project_id: str
    created_at: int
    updated_at: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class NewRuntime:
    """What a caller gives to make a runtime."""

    image: str
    name: str | None = None
    description: str | None = None
    is_public: bool = True
    trusted: bool = True
    orchestrator: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """How many workers of a runtime there may be, and how many are without a function."""

    name: str
    total: int
    available: int


class Runtimes:
    """What can be done with runtimes.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        orchestrators: Mapping[str, plugins.GuardedOrchestrator],
        default_orchestrator: str,
        max_workers: int,
    ) -> None:
        self._db = db
        self._orchestrators = orchestrators
        self._default = default_orchestrator
        self._max_workers = max_workers

    def create(self, identity: Identity, new: NewRuntime) -> Runtime:
        """Insert a runtime that is ``creating``."""
        orchestrator = new.orchestrator or self._default
        if orchestrator not in self._orchestrators:
            enabled = ", ".join(sorted(self._orchestrators))
            raise errors.InvalidRequest(
                f"orchestrator {orchestrator[:64]!r} is not enabled; enabled are: {enabled}"
            )
        row = {
            **dataclasses.asdict(new),
            "orchestrator": orchestrator,
            "id": str(uuid.uuid4()),
            "status": "creating",
            "project_id": identity.project_id,
            "created_at": micros(),
        }
        with self._db.write() as connection:
            connection.execute(sa.insert(T).values(row))
        return self.get(identity, row["id"])

    def list(self, identity: Identity, listing: listings.Listing) -> list[Runtime]:
        """Public runtimes and those of the caller's project."""
        where = sa.or_(T.c.is_public, T.c.project_id == identity.project_id)
        with self._db.read() as connection:
            return [Runtime(*row) for row in listings.page(connection, T, _COLUMNS, where, listing)]

    def get(self, identity: Identity, runtime_id: str) -> Runtime:
        """Raises NotFound for one that does not exist or is private to another project."""
        with self._db.read() as connection:
            return visible(connection, identity, runtime_id)

    def update(self, identity: Identity, runtime_id: str, changes: Mapping[str, Any]) -> Runtime:
        """Change name, description or image; a new image makes the runtime ``upgrading``.

        Raises Conflict unless it is available, Forbidden while a function of it has workers.
        """
        values = {key: value for key, value in changes.items() if key in ("name", "description")}
        image = changes.get("image")
        with self._db.write() as connection:
            _lock(connection, runtime_id)
            runtime = visible(connection, identity, runtime_id)
            guard = T.c.id == runtime_id
            if image is not None and image != runtime.image:
                _check_upgradable(connection, runtime)
                values |= {"next_image": image, "status": "upgrading"}
                guard = sa.and_(guard, T.c.status == "available")
            if values:
                values["updated_at"] = micros()
                if connection.execute(sa.update(T).where(guard).values(values)).rowcount != 1:
                    raise errors.RuntimeNotAvailable(f"Runtime {runtime_id} is not available.")
            return visible(connection, identity, runtime_id)

    def delete(self, identity: Identity, runtime_id: str) -> None:
        """Mark the runtime ``deleting``.  Raises InUse while any function refers to it."""
        with self._db.write() as connection:
            _lock(connection, runtime_id)
            visible(connection, identity, runtime_id)
            used = sa.select(models.functions.c.id).where(models.functions.c.runtime_id == runtime_id)
            if connection.execute(used.limit(1)).first() is not None:
                raise errors.InUse(f"Runtime {runtime_id} is still in use.")
            connection.execute(
                sa.update(T).where(T.c.id == runtime_id).values(status="deleting", updated_at=micros())
            )

    def pool(self, identity: Identity, runtime_id: str) -> Pool:
        """The runtime's pool; for a driver that keeps none, what the host may still start."""
        runtime = self.get(identity, runtime_id)
        driver = self._orchestrators.get(runtime.orchestrator)
        if driver is None:
            raise errors.NotFound(f"Runtime not found: its driver {runtime.orchestrator} is not enabled")
        if Capability.POOL in driver.capabilities:
            state = driver.pool(runtime.image, CHECK_DEADLINE)
            return Pool(runtime_id, state.total, state.available)
        return Pool(runtime_id, self._max_workers, max(0, self._max_workers - self._running()))

    def settle(self) -> None:
        """Bring runtimes that are on their way to where they are going."""
        query = sa.select(T.c.id, T.c.image, T.c.next_image, T.c.status, T.c.orchestrator).where(
            T.c.status.in_(("creating", "upgrading", "deleting"))
        )
        with self._db.read() as connection:
            rows = list(connection.execute(query))
        for row in rows:
            if row.status == "deleting":
                self._remove(row.id)
            else:
                self._judge(row.id, row.status, row.next_image or row.image, row.orchestrator)

    def _remove(self, runtime_id: str) -> None:
        used = sa.exists().where(models.functions.c.runtime_id == T.c.id)
        where = sa.and_(T.c.id == runtime_id, T.c.status == "deleting", ~used)
        with self._db.write() as connection:
            deleted = connection.execute(sa.delete(T).where(where)).rowcount
        if deleted:
            LOG.info("runtime %s: deleted", runtime_id)

    def _judge(self, runtime_id: str, status: str, image: str, orchestrator: str) -> None:
        try:
            if orchestrator not in self._orchestrators:
                raise errors.ImageUnknown(f"the orchestrator driver {orchestrator!r} is not enabled")
            self._orchestrators[orchestrator].check_image(image, CHECK_DEADLINE)
        except errors.DriverUnavailable as error:
            LOG.warning("runtime %s: still %s: %s", runtime_id, status, error)
            self._set(runtime_id, status, reason=(errors.ReasonCode.DRIVER_UNAVAILABLE, error.message))
        except errors.DriverError as error:
            LOG.info("runtime %s: %s failed: %s", runtime_id, status, error)
            state = "error" if status == "creating" else "available"
            reason = (errors.ReasonCode.IMAGE_UNKNOWN, error.message)
            self._set(runtime_id, status, status=state, next_image=None, reason=reason)
        else:
            LOG.info("runtime %s: available", runtime_id)
            self._set(
                runtime_id, status, status="available", image=image, next_image=None, reason=(None, None)
            )

    def _set(
        self,
        runtime_id: str,
        leaving: str,
        reason: tuple[errors.ReasonCode | None, str | None],
        **values: Any,
    ) -> None:
        values |= {"reason_code": reason[0], "reason_message": reason[1]}
        if leaving == "upgrading" and "status" in values:
            values["updated_at"] = micros()
        with self._db.write() as connection:
            connection.execute(sa.update(T).where(T.c.id == runtime_id, T.c.status == leaving).values(values))

    def _running(self) -> int:
        query = sa.select(sa.func.count()).where(models.workers.c.state != "deleted")
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())


_COLUMNS: list[sa.ColumnElement[Any]] = [
    sa.func.coalesce(T.c.next_image, T.c.image).label("image") if field.name == "image" else T.c[field.name]
    for field in dataclasses.fields(Runtime)
]


def visible(connection: sa.Connection, identity: Identity, runtime_id: str) -> Runtime:
    """The runtime, if this caller may see it; else NotFound."""
    where = sa.and_(T.c.id == runtime_id, sa.or_(T.c.is_public, listings.scope(T, identity)))
    row = connection.execute(sa.select(*_COLUMNS).where(where)).first()
    if row is None:
        raise errors.NotFound(f"Runtime not found [id={runtime_id[:64]}]")
    return Runtime(*row)


def _lock(connection: sa.Connection, runtime_id: str) -> None:
    # Against functions that are made for it, and workers that are started of it, at this moment: those hold a
    # shared lock until they are committed, so that what is read after this is all there is.
    connection.execute(sa.select(T.c.id).where(T.c.id == runtime_id).with_for_update())


def _check_upgradable(connection: sa.Connection, runtime: Runtime) -> None:
    if runtime.status != "available":
        raise errors.RuntimeNotAvailable(f"Runtime {runtime.id} is not available.")
    worker, function = models.workers, models.functions
    query = (
        sa.select(worker.c.id)
        .join(function, function.c.id == worker.c.function_id)
        .where(function.c.runtime_id == runtime.id, worker.c.state != "deleted")
    )
    if connection.execute(query.limit(1)).first() is not None:
        raise errors.InUse(
            f"Runtime {runtime.id} is still in use: functions of it have workers; detach them first."
        )
