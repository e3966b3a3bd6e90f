"""What refers to what: asked before something is deleted, in the transaction that deletes it.

Whoever refers to a function or a version inserts its row under `functions.lock`, whoever refers to an alias
by name under `aliases.resolve(..., hold=True)`; so nothing new refers to what was found free of references.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from funcplat import errors
from funcplat.db import models

UNFINISHED = ("running", "paused")
"""States of a job that may run again."""


def check_function(connection: sa.Connection, function_id: str) -> None:
    """Raise InUse while anything refers to the function.  The caller holds its lock."""
    check_jobs(connection, function_id)
    webhook = models.webhooks
    _check_callers(connection, f"The function {function_id}", webhook, webhook.c.function_id == function_id)
    alias = models.function_aliases
    query = sa.select(alias.c.name).where(alias.c.function_id == function_id).order_by(alias.c.name)
    if (name := connection.execute(query.limit(1)).scalar()) is not None:
        raise errors.InUse(f"The function {function_id} is still in use by alias {name}; delete that first.")


def check_jobs(connection: sa.Connection, function_id: str) -> None:
    """Raise InUse while a job that is not over names the function.  The caller holds the function's lock."""
    job = models.jobs
    # A function that is named beside an alias is never called, and may be another project's.
    where = sa.and_(job.c.function_id == function_id, job.c.function_alias.is_(None))
    _check_callers(connection, f"The function {function_id}", job, where)


def check_version(connection: sa.Connection, function_id: str, version: int) -> None:
    """Raise InUse while anything refers to this version of the function.  The caller holds its lock."""
    what = f"Version {version} of function {function_id}"
    for table in (models.jobs, models.webhooks):
        _check_callers(
            connection,
            what,
            table,
            sa.and_(
                table.c.function_id == function_id,
                table.c.function_version == version,
                table.c.function_alias.is_(None),
            ),
        )
    alias = models.function_aliases
    query = sa.select(alias.c.name, alias.c.function_version, alias.c.routes)
    for row in connection.execute(query.where(alias.c.function_id == function_id).order_by(alias.c.name)):
        routed = [route["function_version"] for route in json.loads(row.routes or "[]")]
        if version in (row.function_version, *routed):
            raise errors.InUse(
                f"Version {version} of function {function_id} is still in use by alias {row.name}; "
                "delete that or point it elsewhere first."
            )


def check_alias(connection: sa.Connection, project_id: str, name: str) -> None:
    """Raise InUse while anything refers to the project's alias by its name.  The caller holds its row.

    Executions do not count: they have run, or know which version they are to run.
    """
    what = f"The alias {name}"
    for table in (models.jobs, models.webhooks):
        where = sa.and_(table.c.project_id == project_id, table.c.function_alias == name)
        _check_callers(connection, what, table, where)


def _check_callers(
    connection: sa.Connection, what: str, table: sa.Table, where: sa.ColumnElement[bool]
) -> None:
    """Raise InUse where a webhook, or a job that is not over, is like this."""
    query = sa.select(table.c.id).where(where).order_by(table.c.created_at, table.c.id).limit(1)
    if table is models.jobs:
        query = query.where(table.c.status.in_(UNFINISHED))
    if (caller := connection.execute(query).scalar()) is not None:
        noun = table.name.removesuffix("s")
        remedy = "cancel or delete that first" if table is models.jobs else "delete that first"
        raise errors.InUse(f"{what} is still in use by {noun} {caller}; {remedy}.")
