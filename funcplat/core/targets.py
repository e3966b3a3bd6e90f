"""What jobs and webhooks call: an alias of their project, or a version of a function."""

from __future__ import annotations

import dataclasses

import sqlalchemy as sa

from funcplat import errors
from funcplat.auth.base import Identity
from funcplat.core import aliases, functions
from funcplat.db import models


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """What is called, as it was given.  Where there is an alias, it alone counts."""

    function_id: str | None
    function_version: int | None
    function_alias: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Where a call goes now."""

    function_id: str
    version: int
    runtime_id: str | None  # None: it is an image that names none
    runtime_status: str


def check(reference: Reference) -> None:
    """Raise InvalidRequest where nothing is referred to."""
    if reference.function_id is None and reference.function_alias is None:
        raise errors.InvalidRequest('Either "function_id" or "function_alias" must be specified.')


def hold(
    connection: sa.Connection, identity: Identity, reference: Reference, own: bool, project_id: str
) -> None:
    """Keep the target from being deleted until the row that refers to it is inserted and committed.

    ``own``: the function must belong to ``project_id``, also for admins.  An alias is always looked up there.
    Raises NotFound for what does not exist or is not the caller's.
    """
    if reference.function_alias is not None:
        aliases.resolve(connection, project_id, reference.function_alias, hold=True)
        return
    function_id = reference.function_id or ""
    functions.lock(connection, function_id)
    function = functions.visible(connection, identity, function_id)
    if own and function.project_id != project_id:
        raise errors.NotFound(f"Function not found [id={function_id[:64]}]")
    functions.current_revision(connection, function_id, reference.function_version or 0)


def resolve(connection: sa.Connection, project_id: str, reference: Reference) -> Found:
    """Where a call of a job or webhook of this project goes now.  Raises NotFound where that is gone."""
    function_id, version = reference.function_id or "", reference.function_version or 0
    if reference.function_alias is not None:
        target = aliases.resolve(connection, project_id, reference.function_alias)
        function_id, version = target.function_id, target.version
    revision = functions.current_revision(connection, function_id, version)
    status = connection.execute(
        sa.select(models.runtimes.c.status).where(models.runtimes.c.id == revision.runtime_id)
    ).scalar()
    return Found(function_id, version, revision.runtime_id, status or "available")
