"""Servers: processes of the platform, each with a lease that it renews while it lives.

What a server does (executions, workers) names it; when its lease is over by the database's clock, any other
server may settle what it left.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from funcplat.db import models
from funcplat.db.session import Database, micros

T = models.servers


class Servers:
    """The life of this process as others see it.  Thread-safe."""

    def __init__(self, db: Database, server_id: str, node: str, lease: float) -> None:
        """``lease`` in seconds."""
        self._db = db
        self._id = server_id
        self._node = node
        self._lease = int(lease * 1_000_000)

    def register(self) -> None:
        now = models.now()
        values = {
            "id": self._id,
            "node": self._node,
            "started_at": now,
            "lease_expires_at": now + self._lease,
        }
        with self._db.write() as connection:
            connection.execute(sa.insert(T).values(values))

    def renew(self) -> bool:
        """Extend the lease; False: it was over and somebody removed this server."""
        values = {"lease_expires_at": models.now() + self._lease}
        with self._db.write(durable=False) as connection:
            return bool(connection.execute(sa.update(T).where(T.c.id == self._id).values(values)).rowcount)

    def leave(self) -> None:
        """The orderly end: nothing of this server runs any more."""
        with self._db.write() as connection:
            connection.execute(sa.delete(T).where(T.c.id == self._id))

    def forget_others(self) -> None:
        """At start of the only server there can be (SQLite): every other one is dead."""
        with self._db.write() as connection:
            connection.execute(sa.delete(T).where(T.c.id != self._id))

    def remove_expired(self) -> None:
        """Remove servers whose lease is over; what they ran is settled by whoever sees it."""
        with self._db.write(durable=False) as connection:
            connection.execute(sa.delete(T).where(T.c.lease_expires_at < models.now(), T.c.id != self._id))


def installation_id(db: Database) -> str:
    """The id that labels everything of this installation; made once."""
    table = models.installation
    with db.write() as connection:
        # The row that every upgraded database has: of servers that start together for the first time, one
        # makes the id.
        connection.execute(sa.text("UPDATE alembic_version SET version_num = version_num"))
        found = connection.execute(sa.select(table.c.id).order_by(table.c.created_at, table.c.id)).scalar()
        if found is None:
            found = str(uuid.uuid4())
            connection.execute(sa.insert(table).values(id=found, created_at=micros()))
    return str(found)
