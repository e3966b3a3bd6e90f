"""Idempotency keys: a request that is sent twice makes one execution.

The key and the execution's row are inserted in one transaction, and the key is unique in its project:
whoever comes second, to whichever server, finds the execution of the first.  A key counts for a while, by
the database's clock, and no longer than its execution exists.
"""

from __future__ import annotations

import dataclasses
import hashlib

import sqlalchemy as sa

from funcplat import errors
from funcplat.core.executions import Record
from funcplat.core.queueing import Acceptance
from funcplat.db import models
from funcplat.db.session import Database

T = models.executions
K = models.idempotency_keys
MAX_LENGTH = 255
BATCH = 500
"""Keys that one transaction deletes at most."""
_ATTEMPTS = 5
"""How often a key is looked up that vanishes when it is to be used."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key, and what was asked with it."""

    project_id: str
    name: str
    digest: str  # SHA-256 of the body

    @classmethod
    def of(cls, project_id: str, name: bytes, body: bytes) -> Key:
        """Raises InvalidRequest for a header that is no key."""
        text = name.decode("latin-1").strip()
        if not 1 <= len(text) <= MAX_LENGTH or not all(" " <= each <= "~" for each in text):
            raise errors.InvalidRequest(
                f"Idempotency-Key must have 1 to {MAX_LENGTH} printable ASCII characters."
            )
        return cls(project_id, text, hashlib.sha256(body).hexdigest())


class Idempotency:
    """Remembers keys.  Thread-safe."""

    def __init__(self, db: Database, acceptance: Acceptance, window: float) -> None:
        """``window``: seconds for which a key counts."""
        self._db = db
        self._acceptance = acceptance
        self._window = int(window * 1e6)

    def find(self, key: Key) -> str | None:
        """The id of the execution that was made with the key; None where it is free.

        Raises IdempotencyKeyReused where something else was asked with it.
        """
        with self._db.read() as connection:
            return _find(connection, key)

    def make(self, key: Key, record: Record) -> str:
        """Insert the execution's row, durably, and return its id; or the id of the one that there is.

        Raises IdempotencyKeyReused.
        """
        for _ in range(_ATTEMPTS):
            try:
                with self._db.write() as connection:
                    found = _find(connection, key)
                    if found is not None:
                        return found
                    self._insert(connection, key, record)
            except sa.exc.IntegrityError:
                continue  # somebody else was first, and is committed
            record.inserted = record.counted = True
            return record.id
        raise errors.Overloaded

    def _insert(self, connection: sa.Connection, key: Key, record: Record) -> None:
        # One that is there counts no more, or its execution was deleted.
        connection.execute(sa.delete(K).where(_is(key)))
        values = {"execution_id": record.id, "expires_at": models.now() + self._window}
        connection.execute(sa.insert(K).values(**dataclasses.asdict(key), **values))
        self._acceptance.enqueue(connection, [record])

    def sweep(self) -> int:
        """Delete keys that count no more; returns how many."""
        old = sa.select(K.c.project_id, K.c.name).where(K.c.expires_at <= models.now()).limit(BATCH)
        done = 0
        while True:
            with self._db.write(durable=False) as connection:
                found = list(connection.execute(old.with_for_update(skip_locked=True)))
                for row in found:
                    same = sa.and_(K.c.project_id == row.project_id, K.c.name == row.name)
                    connection.execute(sa.delete(K).where(same))
            done += len(found)
            if len(found) < BATCH:
                return done


def _is(key: Key) -> sa.ColumnElement[bool]:
    return sa.and_(K.c.project_id == key.project_id, K.c.name == key.name)


def _find(connection: sa.Connection, key: Key) -> str | None:
    query = sa.select(K.c.digest, K.c.execution_id).join(T, T.c.id == K.c.execution_id)
    row = connection.execute(query.where(_is(key), K.c.expires_at > models.now())).first()
    if row is None:
        return None
    if row.digest != key.digest:
        raise errors.IdempotencyKeyReused
    return str(row.execution_id)
