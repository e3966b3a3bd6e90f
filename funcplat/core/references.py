"""What refers to what: asked before something is deleted, in the transaction that deletes it.

Whoever refers to a function or a version inserts its row under `functions.lock`, whoever refers to an alias
by name under `aliases.resolve(..., hold=True)`; so nothing new refers to what was found free of references.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from funcplat import errors
from funcplat.db import models


def check_function(connection: sa.Connection, function_id: str) -> None:
    """Raise InUse while anything refers to the function.  The caller holds its lock."""
    alias = models.function_aliases
    query = sa.select(alias.c.name).where(alias.c.function_id == function_id).order_by(alias.c.name)
    if (name := connection.execute(query.limit(1)).scalar()) is not None:
        raise errors.InUse(f"The function {function_id} is still in use by alias {name}; delete that first.")


def check_version(connection: sa.Connection, function_id: str, version: int) -> None:
    """Raise InUse while anything refers to this version of the function.  The caller holds its lock."""
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
