"""Alembic's environment: runs on the engine that `funcplat.db.session` hands over."""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import context

from funcplat.db import models

# Servers that start together may all upgrade: one does, the others wait and find nothing to do.  (On SQLite
# it is the write lock that they wait for, so that every migration is in one transaction.)
NAME = "CONCAT('funcplat.', MD5(DATABASE()))"
MYSQL = (f"SELECT GET_LOCK({NAME}, 300)", f"SELECT RELEASE_LOCK({NAME})")
LOCKS = {
    "postgresql": ("SELECT pg_advisory_lock(7070)", "SELECT pg_advisory_unlock(7070)"),
    "mysql": MYSQL,
    "mariadb": MYSQL,
}


@contextlib.contextmanager
def locked(connection: sa.Connection) -> Iterator[None]:
    lock, unlock = LOCKS.get(connection.dialect.name, (None, None))
    if lock is None or unlock is None:
        yield
        return
    connection.execute(sa.text(lock))
    connection.commit()
    try:
        yield
    finally:
        connection.execute(sa.text(unlock))
        connection.commit()


@contextlib.contextmanager
def unchecked(connection: sa.Connection) -> Iterator[None]:
    """SQLite alters a table by copying it and dropping the old one, which would delete what refers to it."""
    if connection.dialect.name != "sqlite":
        yield
        return
    # Of the driver's connection: within a transaction, as SQLAlchemy would begin, it has no effect.
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.cursor().execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.cursor().execute("PRAGMA foreign_keys = ON")


with context.config.attributes["engine"].connect() as connection:
    connection = connection.execution_options(funcplat_write=True)
    context.configure(
        connection=connection,
        target_metadata=models.metadata,
        render_as_batch=True,
        transactional_ddl=True if connection.dialect.name == "sqlite" else None,
    )
    with unchecked(connection), locked(connection):
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()
