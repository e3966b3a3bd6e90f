"""Versions: numbers that users give to packages of a function.

A version keeps the package that the function had when it was made; number 0 means the function's own code.
Its entry, limits, environment and runtime are the function's, whenever it runs.  What its workers run is a
revision of its number, as for number 0: `funcplat.core.revisions` makes new ones of all where these change.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import functions, references, revisions
from funcplat.core import listing as listings
from funcplat.db import models
from funcplat.db.session import Database, micros

LOG = logging.getLogger(__name__)
T = models.function_versions
F = models.functions


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """A version as callers see it.  Times in microseconds since the epoch."""

    id: str
    description: str | None
    function_id: str
    version_number: int
    count: int
    project_id: str
    created_at: int
    updated_at: int | None


class Versions:
    """What can be done with versions; the package of one is `Functions.download`'s.  Thread-safe."""

    def __init__(self, db: Database, limit: int, superseded: Callable[[str, int], None]) -> None:
        """``limit``: versions of one function; ``superseded(function, version)`` drains old workers."""
        self._db = db
        self._limit = limit
        self._superseded = superseded

    def create(self, identity: Identity, function_id: str, description: str | None = None) -> Version:
        """Keep the function's present package under the next number, which is never given again.

        Raises NotFound also for admins of other projects, NotVersionable, TooManyVersions, and
        VersionUnchanged where the newest version has this package.
        """
        with self._db.write() as connection:
            functions.lock(connection, function_id)
            function = _own(connection, identity, function_id)
            self._check_room(connection, function)
            revision = functions.current_revision(connection, function_id, 0)
            _check_changed(connection, function, revision)
            made = sa.select(F.c.versions_made).where(F.c.id == function_id)
            number = int(connection.execute(made).scalar_one()) + 1
            version = Version(
                str(uuid.uuid4()), description, function_id, number, 0, function.project_id, micros(), None
            )
            connection.execute(sa.insert(T).values(dataclasses.asdict(version)))
            revisions.copy(connection, revision, number)
            counted = {"latest_version": number, "versions_made": number}
            connection.execute(sa.update(F).where(F.c.id == function_id).values(counted))
        LOG.info("function %s: version %d created", function_id, number)
        return version

    def list(self, identity: Identity, function_id: str, listing: listings.Listing) -> list[Version]:
        """The versions of a visible function."""
        with self._db.read() as connection:
            functions.visible(connection, identity, function_id)
            rows = listings.page(connection, T, _COLUMNS, T.c.function_id == function_id, listing)
        return [Version(*row) for row in rows]

    def get(self, identity: Identity, function_id: str, number: int) -> Version:
        """Raises NotFound; there is no version 0, which is the function."""
        with self._db.read() as connection:
            functions.visible(connection, identity, function_id)
            return _version(connection, function_id, number)

    def delete(self, identity: Identity, function_id: str, number: int) -> None:
        """Delete the version and its workers; its executions remain, its package goes later.

        Raises NotFound also for admins of other projects, InUse while anything refers to it.
        """
        with self._db.write() as connection:
            functions.lock(connection, function_id)
            _own(connection, identity, function_id)
            version = _version(connection, function_id, number)
            references.check_version(connection, function_id, number)
            connection.execute(sa.delete(T).where(T.c.id == version.id))
            revisions.end(connection, function_id, number)
            newest = sa.select(sa.func.max(T.c.version_number)).where(T.c.function_id == function_id)
            latest = connection.execute(newest).scalar() or 0
            connection.execute(sa.update(F).where(F.c.id == function_id).values(latest_version=latest))
        LOG.info("function %s: version %d deleted", function_id, number)
        self._superseded(function_id, number)

    def _check_room(self, connection: sa.Connection, function: functions.Function) -> None:
        if json.loads(function.code)["source"] != "package":
            raise errors.NotVersionable
        query = sa.select(sa.func.count()).where(T.c.function_id == function.id)
        if connection.execute(query).scalar_one() >= self._limit:
            raise errors.TooManyVersions(f"Can not exceed maximum number({self._limit}) of versions")


_COLUMNS: list[sa.ColumnElement[Any]] = [T.c[field.name] for field in dataclasses.fields(Version)]


def _own(connection: sa.Connection, identity: Identity, function_id: str) -> functions.Function:
    function = functions.visible(connection, identity, function_id)
    if function.project_id != identity.project_id:
        raise errors.NotFound(f"Function not found [id={function_id[:64]}]")
    return function


def _version(connection: sa.Connection, function_id: str, number: int) -> Version:
    query = sa.select(*_COLUMNS).where(T.c.function_id == function_id, T.c.version_number == number)
    row = connection.execute(query).first()
    if row is None:
        raise errors.NotFound(f"Function version not found [id={function_id[:64]}, version={number}]")
    return Version(*row)


def _check_changed(connection: sa.Connection, function: functions.Function, revision: Any) -> None:
    if function.latest_version == 0:
        return
    latest = functions.current_revision(connection, function.id, function.latest_version)
    if latest.digest == revision.digest:
        raise errors.VersionUnchanged(
            f"Function package not changed since the latest version {function.latest_version}."
        )
