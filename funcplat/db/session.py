"""The database: one engine, two kinds of transactions, the schema's version."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import alembic.command
import alembic.config
import alembic.runtime.migration
import alembic.script
import sqlalchemy as sa
import tenacity

from funcplat import errors

P = ParamSpec("P")
R = TypeVar("R")

MIGRATIONS = pathlib.Path(__file__).parent / "migrations"
BUSY_TIMEOUT = 30.0
"""Seconds that a SQLite transaction waits for another one."""
_GIVEN_UP = frozenset({1213, 1020, "40P01", "40001"})
"""MariaDB's numbers and PostgreSQL's SQLSTATEs: a deadlock, and a row that another transaction changed."""


class TransactionGivenUp(errors.DriverUnavailable):
    """The database ended a transaction for the good of another; nothing of it was done."""


def repeated(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that is one transaction and nothing else: one that is given up is made again.

    Raises TransactionGivenUp where that happens five times in a row.
    """
    return tenacity.retry(
        retry=tenacity.retry_if_exception_type(TransactionGivenUp),
        stop=tenacity.stop_after_attempt(5),
        wait=tenacity.wait_random_exponential(0.01, max=0.2),
        reraise=True,
    )(function)


class Database:
    """Transactions on the one database.  Thread-safe.

    `read` and `write` give a connection in a transaction; nothing outside the database may be
    touched while one is open.
    """

    def __init__(self, url: str, max_connections: int = 16) -> None:
        """``url`` is SQLAlchemy's. Raises ConfigError for one that cannot be used."""
        try:
            self.url = sa.make_url(url)
            self.engine = _create_engine(self.url, max_connections)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise errors.ConfigError(f"[database] connection cannot be used: {error}") from error

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that reads one consistent state."""
        with _translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self, durable: bool = True) -> Iterator[sa.Connection]:
        """A transaction that may write; on SQLite it holds the write lock from its start.

        Not ``durable``: once committed it survives the death of this process, but the machine's only on
        databases that do not make a difference (all but SQLite).
        """
        with _translated(), self.engine.connect() as connection:
            connection = connection.execution_options(funcplat_write=True, funcplat_durable=durable)
            with connection.begin():
                yield connection

    def ping(self) -> None:
        """Raise DriverUnavailable where the database does not answer."""
        with self.read() as connection:
            connection.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()

    # -- the schema ----------------------------------------------------------------------------------

    def upgrade(self) -> str:
        """Bring the schema to this release's version, which is returned.  Of several at once, one does it.

        Raises ConfigError where the database cannot be opened.
        """
        with _opened():
            alembic.command.upgrade(self._alembic(), "head")
        return self.wanted_version()

    def check(self) -> str:
        """The schema's version.  Raises SchemaError where it is not this release's."""
        found, wanted = self.found_version(), self.wanted_version()
        if found != wanted:
            raise errors.SchemaError(
                f"the database schema is at version {found or '(none)'}, this release needs {wanted}; "
                "run: funcplat db upgrade"
            )
        return wanted

    def found_version(self) -> str | None:
        """The schema's version; None for an empty database.  Looking does not make a SQLite file."""
        if self.is_sqlite and self.url.database and not pathlib.Path(self.url.database).exists():
            return None
        with _opened(), self.engine.connect() as connection:
            return alembic.runtime.migration.MigrationContext.configure(connection).get_current_revision()

    def wanted_version(self) -> str:
        head = alembic.script.ScriptDirectory.from_config(self._alembic()).get_current_head()
        assert head is not None
        return head

    def _alembic(self) -> alembic.config.Config:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["engine"] = self.engine
        return config


def sqlite_url(path: pathlib.Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def micros() -> int:
    """This process's clock in microseconds since the epoch: for created_at, never for leases."""
    return time.time_ns() // 1000


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        # PyMySQL has the number as its first argument, psycopg the SQLSTATE as an attribute.
        if {getattr(cause, "sqlstate", None), *cause.args[:1]} & _GIVEN_UP:
            raise TransactionGivenUp(f"the database gave the transaction up: {cause}") from error
        raise errors.DriverUnavailable(f"the database does not answer: {cause}") from error


@contextlib.contextmanager
def _opened() -> Iterator[None]:
    """At start a database that does not answer, or is none, is a matter of configuration."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise errors.ConfigError(f"the database cannot be opened: {error.orig}") from error


def _create_engine(url: sa.URL, max_connections: int) -> sa.Engine:
    options: dict[str, Any] = {"pool_size": max_connections, "max_overflow": 0, "pool_pre_ping": True}
    if url.get_backend_name() == "sqlite":
        options |= {
            "connect_args": {"timeout": BUSY_TIMEOUT, "check_same_thread": False},
            "pool_pre_ping": False,
            "poolclass": sa.pool.QueuePool,
        }
    elif url.get_backend_name() in ("mysql", "mariadb"):
        options["isolation_level"] = "READ COMMITTED"
    engine = sa.create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # None: SQLAlchemy's begin event says BEGIN, not the sqlite3 module's guess of when one is needed.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that began as a reader cannot wait for the write lock once another has written, so that
    # writers take the lock at their start.
    options = connection.get_execution_options()
    if options.get("funcplat_write"):
        # In WAL mode NORMAL does not wait for the disk at commit; the file stays consistent all the same.
        level = "FULL" if options.get("funcplat_durable", True) else "NORMAL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("funcplat_write") else "BEGIN")
