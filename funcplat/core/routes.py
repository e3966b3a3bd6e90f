"""What a router must know of one function's version: read in one transaction, good for about a second."""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from funcplat import errors
from funcplat.core.workers import Worker, Workers
from funcplat.db import models
from funcplat.db.session import Database


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A function's version as routers see it."""

    function_id: str
    version: int
    project_id: str
    timeout: int  # seconds
    revision_id: str
    runtime_id: str | None  # None: it is an image that names none
    runtime_status: str
    workers: tuple[Worker, ...]
    image: str | None = None  # by its digest, where the code is one
    orchestrator: str | None = None  # name of the runtime's driver


class Routes:
    """Reads routes.  Thread-safe."""

    def __init__(self, db: Database, workers: Workers) -> None:
        self._db = db
        self._workers = workers

    def read(self, function_id: str, version: int) -> Route:
        """Raises NotFound for an unknown function or version."""
        function, revision, runtime = models.functions, models.revisions, models.runtimes
        query = (
            sa.select(function.c.project_id, function.c.timeout, revision.c.id, revision.c.image)
            .add_columns(runtime.c.id.label("runtime_id"), runtime.c.status, runtime.c.orchestrator)
            .join(revision, revision.c.function_id == function.c.id)
            .outerjoin(runtime, runtime.c.id == revision.c.runtime_id)
            .where(function.c.id == function_id, revision.c.version == version)
            .where(revision.c.current.is_(True))
        )
        with self._db.read() as connection:
            row = connection.execute(query).first()
            if row is None:
                raise self._missing(connection, function_id, version)
            workers = tuple(self._workers.ready(connection, row.id))
        return Route(
            function_id,
            version,
            row.project_id,
            row.timeout,
            row.id,
            row.runtime_id,
            row.status or "available",
            workers,
            row.image,
            row.orchestrator,
        )

    def _missing(self, connection: sa.Connection, function_id: str, version: int) -> errors.NotFound:
        function = models.functions
        known = connection.execute(sa.select(function.c.id).where(function.c.id == function_id)).first()
        what = f"Function version {version} not found" if known else "Function not found"
        return errors.NotFound(f"{what} [id={function_id[:64]}]")
