"""Revisions: what workers run, immutable, one of each version current at a time.

Each is the code of its version, 0 or one that users made, with entry, limits, environment and runtime, which
all versions have of the function.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from funcplat.core.code import Kept
from funcplat.db import models
from funcplat.db.session import micros

T = models.revisions
_FIELDS = ("runtime_id", "entry", "cpu", "memory_size", "environment")
"""What a revision has of its function."""


def insert(connection: sa.Connection, function: Mapping[str, Any], kept: Kept) -> None:
    """The first revision of a function, with code that is kept."""
    _insert(connection, function, 0, _code(kept))


def renew(connection: sa.Connection, function: Mapping[str, Any], kept: Kept | None) -> bool:
    """Make new revisions current where the function's fields, or its code, differ now; whether any does.

    ``kept``: new code, of version 0; the others keep theirs.  The caller holds the function's lock.
    """
    query = sa.select(T).where(T.c.function_id == function["id"], T.c.current.is_(True))
    old = list(connection.execute(query.order_by(T.c.version)))
    replaced = [_replace(connection, each, function, kept if each.version == 0 else None) for each in old]
    return any(replaced)


def copy(connection: sa.Connection, revision: Any, version: int) -> None:
    """The first revision of a version, with the code and the fields of this one."""
    fields = {key: getattr(revision, key) for key in _FIELDS}
    _insert(connection, {"id": revision.function_id, **fields}, version, _code_of(revision))


def end(connection: sa.Connection, function_id: str, version: int) -> None:
    """No revision of the version is current any more; they go when their last workers have gone."""
    where = sa.and_(T.c.function_id == function_id, T.c.version == version, T.c.current.is_(True))
    connection.execute(sa.update(T).where(where).values(current=None))


def _replace(connection: sa.Connection, old: Any, function: Mapping[str, Any], kept: Kept | None) -> bool:
    code = _code_of(old) if kept is None else _code(kept)
    if code == _code_of(old) and all(getattr(old, key) == function[key] for key in _FIELDS):
        return False
    connection.execute(sa.update(T).where(T.c.id == old.id, T.c.current.is_(True)).values(current=None))
    _insert(connection, function, old.version, code)
    return True


def _insert(
    connection: sa.Connection, function: Mapping[str, Any], version: int, code: Mapping[str, Any]
) -> None:
    connection.execute(
        sa.insert(T).values(
            id=str(uuid.uuid4()),
            function_id=function["id"],
            version=version,
            current=True,
            created_at=micros(),
            **code,
            **{key: function[key] for key in _FIELDS},
        )
    )


def _code(kept: Kept) -> dict[str, Any]:
    if kept.stored is None:
        return {"store": None, "digest": None, "image": kept.image}
    return {"store": kept.stored.store, "digest": kept.stored.digest, "image": None}


def _code_of(revision: Any) -> dict[str, Any]:
    return {"store": revision.store, "digest": revision.digest, "image": revision.image}
