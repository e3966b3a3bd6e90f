"""Functions: named code of a project, and what it may use.

Workers belong to a *revision*: immutable code, entry, limits, environment and runtime.  A change of any of
these makes a new revision current; the workers of the old one are drained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import listing as listings
from funcplat.core import packages, references, revisions, runtimes
from funcplat.core.code import Code, Kept, dump, is_image
from funcplat.core.packagestore import PackageStore
from funcplat.db import models
from funcplat.db.session import Database, micros

LOG = logging.getLogger(__name__)
T = models.functions
DEFAULT_ENTRY = "main.main"


@dataclasses.dataclass(frozen=True, slots=True)
class Function:
    """A function as callers see it.  Times in microseconds since the epoch."""

    id: str
    name: str | None
    description: str | None
    cpu: int  # millicores
    memory_size: int  # bytes
    timeout: int  # seconds
    runtime_id: str | None  # None: it is an image that names none
    code: str  # JSON text
    entry: str | None
    count: int
    latest_version: int
    project_id: str
    created_at: int
    updated_at: int | None
    environment: str  # JSON text: an object of strings


@dataclasses.dataclass(frozen=True, slots=True)
class NewFunction:
    """What a caller gives to make a function.  None: the default."""

    code: Mapping[str, Any]
    runtime_id: str | None = None
    name: str | None = None
    description: str | None = None
    entry: str | None = None
    cpu: int | None = None
    memory_size: int | None = None
    timeout: int | None = None
    environment: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What a caller changes.  None: stays."""

    code: Mapping[str, Any] | None = None
    runtime_id: str | None = None
    name: str | None = None
    description: str | None = None
    entry: str | None = None
    cpu: int | None = None
    memory_size: int | None = None
    timeout: int | None = None
    environment: Mapping[str, str] | None = None

    @property
    def runs_otherwise(self) -> bool:
        """Whether more is given than what may change under jobs that are not over (API.md section 4.5)."""
        given = (self.code, self.runtime_id, self.entry, self.cpu, self.memory_size, self.environment)
        return any(each is not None for each in given)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The range and default of one limit."""

    default: int
    minimum: int
    maximum: int

    def check(self, name: str, value: int | None) -> int:
        if value is None:
            return self.default
        if not self.minimum <= value <= self.maximum:
            raise errors.LimitOutOfRange(
                f"{name} resource limitation not within the allowable range: {self.minimum} ~ {self.maximum}"
            )
        return value


class Functions:
    """What can be done with functions.  Thread-safe."""

    def __init__(
        self,
        db: Database,
        store: PackageStore,
        code: Code,
        limits: Mapping[str, Limits],
        superseded: Callable[[str, int], None],
    ) -> None:
        """``limits`` has cpu, memory and timeout; ``superseded(function, version)`` drains old workers."""
        self._db = db
        self._store = store
        self._code = code
        self._limits = limits
        self._superseded = superseded

    def create(self, identity: Identity, new: NewFunction, package: packages.Spooled | None) -> Function:
        """Make a function of a checked package, or of an image.

        Raises InvalidRequest and its kinds, NotFound for an unknown runtime.  The bytes are stored before
        the rows are written; when that never happens the store's sweep removes them.
        """
        self._code.check_source(new.code)
        limits = self._checked_limits(new)
        self._code.check_new(new.code, new.runtime_id, package)
        orchestrator = self._check_runtime(identity, new.runtime_id)
        kept = self._code.keep(new.code, package, orchestrator)
        function_id = str(uuid.uuid4())
        values = {
            "id": function_id,
            "name": new.name,
            "description": new.description,
            "runtime_id": new.runtime_id,
            "code": kept.text,
            "entry": None if kept.image is not None else new.entry or DEFAULT_ENTRY,
            **limits,
            "environment": dump(dict(new.environment or {})),
            "count": 0,
            "latest_version": 0,
            "project_id": identity.project_id,
            "created_at": micros(),
        }
        with self._db.write() as connection:
            _lock_available_runtime(connection, identity, new.runtime_id)
            connection.execute(sa.insert(T).values(values))
            revisions.insert(connection, values, kept)
            if kept.stored is not None:
                self._store.refer(connection, kept.stored)
        LOG.info("function %s: created by project %s", function_id, identity.project_id)
        return self.get(identity, function_id)

    def list(self, identity: Identity, listing: listings.Listing) -> list[Any]:
        """Rows with the fields of `Function`, in order."""
        where = listings.list_scope(T, identity, listing)
        with self._db.read() as connection:
            return listings.page(connection, T, _COLUMNS, where, listing)

    def get(self, identity: Identity, function_id: str) -> Function:
        """Raises NotFound for one that does not exist or is another project's."""
        with self._db.read() as connection:
            return visible(connection, identity, function_id)

    @contextlib.contextmanager
    def download(
        self, identity: Identity, function_id: str, version: int = 0
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The size and bytes of a version's package.

        Raises NotFound where the store lost it, NotDownloadable for an image.
        """
        with self._db.read() as connection:
            visible(connection, identity, function_id)
            revision = current_revision(connection, function_id, version)
            if revision.image is not None:
                raise errors.NotDownloadable
            size = self._store.size(connection, revision.store, revision.digest)
        with self._store.open(revision.store, revision.digest) as chunks:
            yield size, chunks

    def update(
        self, identity: Identity, function_id: str, changes: Changes, package: packages.Spooled | None
    ) -> Function:
        """Change the function; new code, entry, limits, environment or runtime make a new revision.

        An image whose ``code`` is given is looked up again, also under the name that it has.

        Raises InUse for what would make a new revision while a job that is not over names the function.
        """
        function = self.get(identity, function_id)
        # Refused here, before any bytes are stored; what is changed is decided within the transaction.
        self._changed_values(function, changes, None)
        self._code.check_changed(function.code, changes.code or {}, package)
        kept = self._kept(identity, function, changes, package)
        with self._db.write() as connection:
            lock(connection, function_id)
            function = visible(connection, identity, function_id)
            values = self._changed_values(function, changes, kept)
            if package is not None or changes.runs_otherwise:
                references.check_jobs(connection, function_id)
            replaced = self._apply(connection, identity, function, values, kept)
        if replaced:
            LOG.info("function %s: new revision", function_id)
            self._superseded(function_id, 0)
        return self.get(identity, function_id)

    def _kept(
        self, identity: Identity, function: Function, changes: Changes, package: packages.Spooled | None
    ) -> Kept | None:
        """New code, kept before any row is locked."""
        pins = changes.code is not None and is_image(function.code)
        orchestrator = None
        if pins or changes.runtime_id not in (None, function.runtime_id):
            orchestrator = self._check_runtime(identity, changes.runtime_id or function.runtime_id)
        if package is None and not pins:
            return None
        return self._code.keep({**json.loads(function.code), **(changes.code or {})}, package, orchestrator)

    def delete(self, identity: Identity, function_id: str) -> None:
        """Delete the function, its revisions and workers; executions remain, the package goes later.

        Raises Forbidden for an admin of another project, InUse while anything refers to it.
        """
        with self._db.write() as connection:
            lock(connection, function_id)
            function = visible(connection, identity, function_id)
            if function.project_id != identity.project_id:
                raise errors.Forbidden("Function can only be deleted by its owner.")
            references.check_function(connection, function_id)
            revision = models.revisions
            connection.execute(sa.delete(revision).where(revision.c.function_id == function_id))
            connection.execute(sa.delete(T).where(T.c.id == function_id))
        LOG.info("function %s: deleted", function_id)
        self._superseded(function_id, -1)

    def _apply(
        self,
        connection: sa.Connection,
        identity: Identity,
        function: Function,
        values: dict[str, Any],
        kept: Kept | None,
    ) -> bool:
        if "runtime_id" in values:
            _lock_available_runtime(connection, identity, values["runtime_id"])
        if values:
            values = values | {"updated_at": micros()}
            connection.execute(sa.update(T).where(T.c.id == function.id).values(values))
        merged = dataclasses.asdict(function) | values
        if kept is not None and kept.stored is not None:
            self._store.refer(connection, kept.stored)
        return revisions.renew(connection, merged, kept)

    # -- checks --------------------------------------------------------------------------------------------

    def _checked_limits(self, new: NewFunction | Changes) -> dict[str, int]:
        return {
            "cpu": self._limits["cpu"].check("cpu", new.cpu),
            "memory_size": self._limits["memory"].check("memory", new.memory_size),
            "timeout": self._limits["timeout"].check("timeout", new.timeout),
        }

    def _changed_values(self, function: Function, changes: Changes, kept: Kept | None) -> dict[str, Any]:
        limits = self._checked_limits(changes)
        values: dict[str, Any] = {key: limits[key] for key in limits if getattr(changes, key) is not None}
        for key in ("name", "description", "entry", "runtime_id"):
            if getattr(changes, key) is not None:
                values[key] = getattr(changes, key)
        if "entry" in values:
            values["entry"] = _changed_entry(function, values["entry"])
        if changes.environment is not None:
            values["environment"] = dump(dict(changes.environment))
        values = {key: value for key, value in values.items() if value != getattr(function, key)}
        if changes.code is not None or kept is not None:
            values["code"] = self._code.changed_text(function.code, changes.code or {}, kept)
        return values

    def _check_runtime(self, identity: Identity, runtime_id: str | None) -> str | None:
        """The orchestrator driver of an available runtime; None for no runtime."""
        if runtime_id is None:
            return None
        with self._db.read() as connection:
            return _available_runtime(connection, identity, runtime_id).orchestrator


_COLUMNS: list[sa.ColumnElement[Any]] = [T.c[field.name] for field in dataclasses.fields(Function)]


def visible(connection: sa.Connection, identity: Identity, function_id: str) -> Function:
    """The function, if this caller may see it; else NotFound."""
    where = sa.and_(T.c.id == function_id, listings.scope(T, identity))
    row = connection.execute(sa.select(*_COLUMNS).where(where)).first()
    if row is None:
        raise errors.NotFound(f"Function not found [id={function_id[:64]}]")
    return Function(*row)


def current_revision(connection: sa.Connection, function_id: str, version: int) -> Any:
    """The row of the revision that a new worker of this version runs; NotFound without one."""
    table = models.revisions
    query = sa.select(table).where(
        table.c.function_id == function_id, table.c.version == version, table.c.current.is_(True)
    )
    row = connection.execute(query).first()
    if row is None:
        raise errors.NotFound(f"Function version not found [id={function_id[:64]}, version={version}]")
    return row


def _changed_entry(function: Function, entry: str) -> str | None:
    if not is_image(function.code):
        return entry or DEFAULT_ENTRY
    if entry:
        raise errors.InvalidRequest("A function that is an image has the entry that is in the image.")
    return None


def lock(connection: sa.Connection, function_id: str) -> None:
    """Let changes of one function, and what refers to it, go one after another (on SQLite all writers do).

    The function is locked before its revisions, versions and aliases, so that two transactions cannot wait
    for each other.
    """
    connection.execute(sa.select(T.c.id).where(T.c.id == function_id).with_for_update())


def _available_runtime(connection: sa.Connection, identity: Identity, runtime_id: str) -> runtimes.Runtime:
    runtime = runtimes.visible(connection, identity, runtime_id)
    if runtime.status != "available":
        raise errors.InvalidRequest(f"Runtime {runtime_id} is not available.")
    return runtime


def _lock_available_runtime(connection: sa.Connection, identity: Identity, runtime_id: str | None) -> None:
    # A row lock (SQLite: the write lock) keeps the runtime from being deleted before the function is there.
    if runtime_id is None:
        return
    table = models.runtimes
    connection.execute(sa.select(table.c.id).where(table.c.id == runtime_id).with_for_update(read=True))
    _available_runtime(connection, identity, runtime_id)
