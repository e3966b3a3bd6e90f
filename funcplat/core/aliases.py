"""Aliases: names of a project for versions of its functions.

An alias leads to one version or, with *routes*, shares its calls among several by weight.  Where it leads is
looked up late: by each execution, and by each run of what stores the alias's name.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import uuid
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import functions, references
from funcplat.core import listing as listings
from funcplat.db import models
from funcplat.db.session import Database, micros

LOG = logging.getLogger(__name__)
T = models.function_aliases
FILTERS = ("name", "function_id")
ATTEMPTS = 5
"""How often a change is tried of an alias that others change at the same moment."""
MAX_NAME = 255


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A version that an alias leads to, and how many of the sum of weights' calls it gets."""

    function_version: int
    weight: int


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What one call of an alias runs."""

    function_id: str
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    """An alias as callers see it.  Times in microseconds since the epoch."""

    id: str
    name: str
    description: str | None
    function_id: str
    function_version: int  # with routes: the main one of their versions
    routes: str | None  # JSON text: a list of objects with the fields of `Route`; None: no weights
    project_id: str
    created_at: int
    updated_at: int | None

    def shares(self) -> tuple[Route, ...]:
        """Where calls go; one route where there are no weights."""
        if self.routes is None:
            return (Route(self.function_version, 1),)
        return tuple(Route(**route) for route in json.loads(self.routes))


@dataclasses.dataclass(frozen=True, slots=True)
class NewAlias:
    """What a caller gives to make an alias.  Without routes all calls go to the version, 0 by default."""

    name: str
    function_id: str
    function_version: int | None = None
    routes: tuple[Route, ...] = ()
    description: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What a caller changes.  None: stays; but a new target without routes ends the sharing of calls."""

    function_id: str | None = None
    function_version: int | None = None
    routes: tuple[Route, ...] | None = None  # empty: all calls go to the main version
    description: str | None = None


class Aliases:
    """What can be done with aliases.  Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, identity: Identity, new: NewAlias) -> Alias:
        """Raises InvalidRequest and Duplicate, NotFound for a target that is not the project's."""
        if not is_name(new.name):
            raise errors.InvalidRequest(
                f"name must have 1 to {MAX_NAME} printable characters, without / and without spaces at its "
                "ends, and not be . or .., since it stands in paths."
            )
        version = _main_version(new.routes, new.function_version)
        values = {
            "id": str(uuid.uuid4()),
            "name": new.name,
            "description": new.description,
            "project_id": identity.project_id,
            "created_at": micros(),
            **_target_values(new.function_id, version, new.routes),
        }
        with self._db.write() as connection:
            _hold_target(connection, identity.project_id, new.function_id, {version, *_versions(new.routes)})
            try:
                connection.execute(sa.insert(T).values(values))
            except sa.exc.IntegrityError as error:
                raise _duplicate(new.name, values) from error
        LOG.info("alias %s: created by project %s", values["id"], identity.project_id)
        return self.get(identity, new.name)

    def list(self, identity: Identity, listing: listings.Listing) -> list[Alias]:
        """Those of the project, in order."""
        where = listings.list_scope(T, identity, listing)
        with self._db.read() as connection:
            return [Alias(*row) for row in listings.page(connection, T, _COLUMNS, where, listing)]

    def get(self, identity: Identity, name: str, project_id: str | None = None) -> Alias:
        """The alias of the caller's project; for admins else of another one.

        ``project_id``: admins name the project.  Raises NotFound, and Conflict where an admin would have to.
        """
        with self._db.read() as connection:
            return _visible(connection, identity, name, project_id)

    def find(self, project_id: str, name: str) -> Alias:
        """The project's alias of this name, for routers.  Raises NotFound."""
        with self._db.read() as connection:
            return _named(connection, project_id, name)

    def update(self, identity: Identity, name: str, changes: Changes, project_id: str | None = None) -> Alias:
        """Change where the alias leads, or its description.  Raises as `create` and `get` do."""
        for _ in range(ATTEMPTS):
            with self._db.write() as connection:
                alias = _visible(connection, identity, name, project_id)
                values = _changed_values(alias, changes)
                if not values or _apply(connection, alias, values):
                    break
        else:
            raise errors.Conflict(f"alias {name} is being changed by others; try again")
        if values:
            LOG.info("alias %s: changed: %s", alias.id, ", ".join(sorted(values)))
        return self.get(identity, name, alias.project_id)

    def delete(self, identity: Identity, name: str, project_id: str | None = None) -> Alias:
        """Delete the alias, which is returned.  Raises InUse while anything refers to it by its name."""
        with self._db.write() as connection:
            alias = _visible(connection, identity, name, project_id)
            # What refers to it is inserted while it holds the row: see `resolve`.
            connection.execute(sa.select(T.c.id).where(T.c.id == alias.id).with_for_update())
            references.check_alias(connection, alias.project_id, alias.name)
            if connection.execute(sa.delete(T).where(T.c.id == alias.id)).rowcount != 1:
                raise _missing(name)
        LOG.info("alias %s: deleted", alias.id)
        return alias


_COLUMNS: list[sa.ColumnElement[Any]] = [T.c[field.name] for field in dataclasses.fields(Alias)]


def resolve(connection: sa.Connection, project_id: str, name: str, hold: bool = False) -> Target:
    """Where a call of the project's alias goes now; among several versions it draws lots by their weights.

    ``hold``: the alias is not deleted before the transaction has ended, so that a row which refers to it by
    name can be inserted.  Raises NotFound.
    """
    if hold:
        where = sa.and_(T.c.project_id == project_id, T.c.name == name)
        connection.execute(sa.select(T.c.id).where(where).with_for_update(read=True))
    alias = _named(connection, project_id, name)
    return Target(alias.function_id, _drawn(alias.shares()))


def _drawn(shares: tuple[Route, ...]) -> int:
    lot = random.getrandbits(64) % sum(route.weight for route in shares)
    for route in shares:
        lot -= route.weight
        if lot < 0:
            return route.function_version
    raise AssertionError("a lot is less than the sum of the weights")


def is_name(name: str) -> bool:
    """Whether an alias may have this name: it must be one segment of a path, and equal only to itself."""
    # Some databases take no notice of spaces at the end of a text.
    plain = name.isprintable() and name == name.strip() and "/" not in name
    return plain and 0 < len(name) <= MAX_NAME and name not in (".", "..")


# -- finding -----------------------------------------------------------------------------------------------


def _named(connection: sa.Connection, project_id: str, name: str) -> Alias:
    found = _select(connection, name, T.c.project_id == project_id)
    if not found:
        raise _missing(name)
    return found[0]


def _visible(connection: sa.Connection, identity: Identity, name: str, project_id: str | None) -> Alias:
    if not identity.is_admin:
        return _named(connection, identity.project_id, name)
    if project_id is not None:
        return _named(connection, project_id, name)
    own = _select(connection, name, T.c.project_id == identity.project_id)
    found = own or _select(connection, name, sa.true())
    if not found:
        raise _missing(name)
    if len(found) > 1:
        raise errors.Conflict(f"several projects have an alias {name!r}: say which with project_id")
    return found[0]


def _select(connection: sa.Connection, name: str, where: sa.ColumnElement[bool]) -> list[Alias]:
    if not is_name(name):
        return []
    query = sa.select(*_COLUMNS).where(T.c.name == name, where)
    return [Alias(*row) for row in connection.execute(query)]


def _missing(name: str) -> errors.NotFound:
    return errors.NotFound(f"Function alias not found [name={name[:64]}]")


# -- targets -----------------------------------------------------------------------------------------------


def _hold_target(
    connection: sa.Connection, project_id: str, function_id: str, versions: Iterable[int]
) -> None:
    """Keep function and versions from being deleted until the transaction ends; NotFound unless they are."""
    functions.lock(connection, function_id)
    owner = connection.execute(
        sa.select(models.functions.c.project_id).where(models.functions.c.id == function_id)
    ).scalar()
    # Also for admins: who calls an alias of a project runs that project's code.
    if owner != project_id:
        raise errors.NotFound(f"Function not found [id={function_id[:64]}]")
    for version in sorted(versions):
        functions.current_revision(connection, function_id, version)


def _main_version(routes: Iterable[Route], given: int | None) -> int:
    """The version that an alias with these routes shows: the one given, else that of the first route."""
    versions = _versions(routes)
    if not versions:
        return given or 0
    if len(set(versions)) != len(versions):
        raise errors.InvalidRequest("routes has a version more than once.")
    if given is not None and given not in versions:
        raise errors.InvalidRequest(f"function_version {given} is none of the versions of routes.")
    return versions[0] if given is None else given


def _versions(routes: Iterable[Route]) -> list[int]:
    return [route.function_version for route in routes]


def _target_values(function_id: str, version: int, routes: Iterable[Route]) -> dict[str, Any]:
    written = [dataclasses.asdict(route) for route in routes]
    return {
        "function_id": function_id,
        "function_version": version,
        "routes": json.dumps(written, separators=(",", ":")) if written else None,
        "sole": None if written else True,
    }


def _changed_values(alias: Alias, changes: Changes) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if (changes.function_id, changes.function_version, changes.routes) != (None, None, None):
        version = changes.function_version
        if not changes.routes and version is None:
            version = alias.function_version
        version = _main_version(changes.routes or (), version)
        values = _target_values(changes.function_id or alias.function_id, version, changes.routes or ())
    if changes.description is not None:
        values["description"] = changes.description
    return values


def _apply(connection: sa.Connection, alias: Alias, values: dict[str, Any]) -> bool:
    """False where another change of its target came in between."""
    if "function_id" in values:
        routes = values["routes"]
        versions = [each["function_version"] for each in json.loads(routes)] if routes else []
        target = {values["function_version"], *versions}
        _hold_target(connection, alias.project_id, values["function_id"], target)
    where = sa.and_(
        T.c.id == alias.id,
        T.c.function_id == alias.function_id,
        T.c.function_version == alias.function_version,
    )
    changed = sa.update(T).where(where).values(**values, updated_at=micros())
    try:
        return connection.execute(changed).rowcount == 1
    except sa.exc.IntegrityError as error:
        raise _duplicate(alias.name, values) from error


def _duplicate(name: str, values: dict[str, Any]) -> errors.Duplicate:
    target = f"function_id={values.get('function_id')}, function_version={values.get('function_version')}"
    return errors.Duplicate(
        f"Duplicate entry for function_aliases: the project has an alias name={name}, "
        f"or another alias for [{target}]"
    )
