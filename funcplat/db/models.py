"""The tables.  SQLAlchemy Core only: rows are read as they are, the ORM stays out of the house.

Times are integers: microseconds since the epoch, UTC.  They sort, compare and travel alike on every
database, and `now` is the database's own clock, which is the one that leases and due times use.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ID = sa.String(36)
NAME = sa.String(255)
MEDIUM_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
LONG_BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
TIME = sa.BigInteger
# Text is compared byte by byte, as elsewhere, and holds all of Unicode, whatever the server's default.
TEXT_OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


class now(FunctionElement[int]):  # noqa: N801  named like SQL's own functions
    """The database's clock in microseconds since the epoch."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **_: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **_: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


@compiles(now, "mysql")
@compiles(now, "mariadb")
def _now_mysql(element: now, compiler: Any, **_: Any) -> str:
    # Of UTC itself: what is computed from local time is an hour wrong when clocks are set back.
    return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"


installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", ID, primary_key=True, comment="owner label of everything this installation makes"),
    sa.Column("created_at", TIME, nullable=False),
    **TEXT_OPTIONS,
)

servers = sa.Table(
    "servers",
    metadata,
    sa.Column("id", ID, primary_key=True, comment="one process of the platform, for its life"),
    sa.Column("node", NAME, nullable=False, comment="the machine it runs on"),
    sa.Column("started_at", TIME, nullable=False),
    sa.Column("lease_expires_at", TIME, nullable=False, comment="later than that it counts as lost"),
    **TEXT_OPTIONS,
)

runtimes = sa.Table(
    "runtimes",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NAME),
    sa.Column("description", NAME),
    sa.Column("image", NAME, nullable=False),
    sa.Column("next_image", NAME, comment="while upgrading: the image to become"),
    sa.Column("is_public", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("trusted", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason_code", sa.String(32)),
    sa.Column("reason_message", sa.Text),
    sa.Column("orchestrator", NAME, nullable=False, comment="name of the driver"),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.Index(None, "status"),
    **TEXT_OPTIONS,
)

packages = sa.Table(
    "packages",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True, comment="SHA-256"),
    sa.Column("store", NAME, primary_key=True, comment="name of the storage driver"),
    sa.Column("md5", sa.String(32), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, comment="storing, stored, deleting"),
    sa.Column("touched_at", TIME, nullable=False, comment="when an upload last promised to refer to it"),
    **TEXT_OPTIONS,
)

functions = sa.Table(
    "functions",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NAME),
    sa.Column("description", NAME),
    sa.Column("runtime_id", ID, sa.ForeignKey("runtimes.id"), index=True),
    sa.Column("code", MEDIUM_TEXT, nullable=False, comment="JSON, as answers show it"),
    sa.Column("entry", sa.String(80)),
    sa.Column("cpu", sa.Integer, nullable=False),
    sa.Column("memory_size", sa.BigInteger, nullable=False),
    sa.Column("timeout", sa.Integer, nullable=False),
    sa.Column("environment", MEDIUM_TEXT, nullable=False, comment="JSON object of strings"),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("latest_version", sa.Integer, nullable=False),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.Column(
        "versions_made",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="the highest version number ever given: none is given twice",
    ),
    sa.Index(None, "project_id", "created_at", "id"),
    **TEXT_OPTIONS,
)

function_versions = sa.Table(
    "function_versions",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("function_id", ID, sa.ForeignKey("functions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("version_number", sa.Integer, nullable=False, comment="its code is that of its revisions"),
    sa.Column("description", NAME),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.UniqueConstraint("function_id", "version_number"),
    **TEXT_OPTIONS,
)

function_aliases = sa.Table(
    "function_aliases",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NAME, nullable=False),
    sa.Column("description", NAME),
    sa.Column("function_id", ID, sa.ForeignKey("functions.id"), nullable=False),
    sa.Column("function_version", sa.Integer, nullable=False),
    sa.Column(
        "routes", sa.Text, comment="JSON: versions with their weights; null: function_version gets all"
    ),
    sa.Column("sole", sa.Boolean(create_constraint=False), comment="true, or null where there are routes"),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.UniqueConstraint("project_id", "name"),
    # One name for one version, as the old API has it; those that share calls may go to the same ones.
    sa.UniqueConstraint("function_id", "function_version", "sole"),
    **TEXT_OPTIONS,
)

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("function_id", ID, sa.ForeignKey("functions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False, comment="0: the function's own code"),
    sa.Column("current", sa.Boolean(create_constraint=False), comment="true, or null once superseded"),
    # Null where the code is an image:
    sa.Column("runtime_id", ID),
    sa.Column("store", NAME),
    sa.Column("digest", sa.String(64)),
    sa.Column("entry", sa.String(80)),
    sa.Column("image", sa.String(400), comment="instead of a package: an image, by its digest"),
    sa.Column("cpu", sa.Integer, nullable=False),
    sa.Column("memory_size", sa.BigInteger, nullable=False),
    sa.Column("environment", MEDIUM_TEXT, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.UniqueConstraint("function_id", "version", "current"),
    sa.Index(None, "digest"),
    **TEXT_OPTIONS,
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("revision_id", ID, nullable=False),
    sa.Column("slot", sa.Integer, comment="place among the revision's workers; null once deleted"),
    sa.Column("function_id", ID, nullable=False, index=True),
    sa.Column("function_version", sa.Integer, nullable=False),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("orchestrator", NAME, nullable=False),
    sa.Column("server_id", ID, nullable=False, comment="the process that started it"),
    sa.Column("node", NAME, nullable=False, comment="the machine it was started from"),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("handle", sa.Text, comment="JSON; null until the driver returned it"),
    sa.Column("secret", sa.String(64), nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("reason_code", sa.String(32)),
    sa.Column("reason_message", sa.Text),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME, nullable=False),
    sa.Column("used_at", TIME, nullable=False, comment="when a router last gave it a call"),
    sa.UniqueConstraint("revision_id", "slot"),
    sa.Index(None, "state", "used_at"),
    **TEXT_OPTIONS,
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("name", NAME),
    # No foreign key: a job that is over outlives its function.
    sa.Column("function_id", ID, index=True),
    sa.Column("function_alias", NAME, comment="if there is one, it alone counts"),
    sa.Column("function_version", sa.Integer),
    sa.Column("function_input", MEDIUM_TEXT),
    sa.Column("status", sa.String(16), nullable=False, comment="running, paused, cancelled, done"),
    sa.Column("pattern", NAME, comment="cron; null for a job that runs once"),
    sa.Column("time_zone", sa.String(64), comment="IANA name; null: UTC"),
    sa.Column("missed_ticks", sa.String(16), nullable=False, comment="once, skip"),
    sa.Column("count", sa.Integer, comment="runs that are left; null: no end"),
    sa.Column("first_execution_time", TIME, nullable=False),
    sa.Column("next_execution_time", TIME, nullable=False, comment="the next tick, or the last one made"),
    sa.Column("reason_code", sa.String(32)),
    sa.Column("reason_message", sa.Text),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.Index(None, "status", "next_execution_time"),
    sa.Index(None, "project_id", "created_at", "id"),
    **TEXT_OPTIONS,
)

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("function_id", ID, index=True),
    sa.Column("function_alias", NAME, comment="if there is one, function_id and function_version are null"),
    sa.Column("function_version", sa.Integer),
    sa.Column("description", NAME),
    sa.Column("secret", sa.String(128), comment="whsec_ and base64; null: anybody may call"),
    sa.Column("previous_secret", sa.String(128), comment="counts too, for a while after a rotation"),
    sa.Column("previous_secret_expires_at", TIME),
    sa.Column("rate_limit", sa.Integer, comment="calls a minute; null: no limit"),
    sa.Column("rate_burst", sa.Integer, comment="calls at once"),
    sa.Column("rate_paid_until", TIME, comment="the calls let in so far are what the rate allows until then"),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    sa.Index(None, "project_id", "created_at", "id"),
    **TEXT_OPTIONS,
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("webhook_id", ID, primary_key=True),
    sa.Column("message_id", NAME, primary_key=True, comment="the sender's, of a message that was signed"),
    sa.Column("sent_at", sa.BigInteger, nullable=False, comment="seconds: the newest timestamp it came with"),
    sa.Column("execution_id", ID, nullable=False),
    sa.Column("expires_at", TIME, nullable=False, index=True),
    **TEXT_OPTIONS,
)

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("id", ID, primary_key=True),
    sa.Column("function_id", ID, nullable=False),
    sa.Column("function_version", sa.Integer),
    sa.Column("function_alias", NAME),
    sa.Column("description", NAME),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("sync", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("input", MEDIUM_TEXT),
    sa.Column("result", MEDIUM_TEXT),
    sa.Column("reason_code", sa.String(32)),
    sa.Column("reason_message", sa.Text),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("worker_id", ID),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("server_id", ID, comment="the process that runs it"),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("updated_at", TIME),
    # Late, so that lists need not read past it: what the function wrote, null for nothing.
    sa.Column("log", LONG_BYTES),
    # Of asynchronous ones, else null:
    sa.Column("due_at", TIME, comment="when it may be claimed or was queued; the database's clock"),
    sa.Column("expires_at", TIME, comment="later than that it does not begin any more; the database's clock"),
    sa.Column("losses", sa.Integer, comment="attempts that failed by the platform's doing, and count"),
    sa.Column("failures", sa.Integer, comment="attempts that failed by the function's doing"),
    sa.Column("retry", NAME, comment="JSON: what is done when the function fails; null: nothing"),
    sa.Index(None, "project_id", "created_at"),
    sa.Index(None, "function_id", "created_at"),
    **TEXT_OPTIONS,
)
UNFINISHED = ("queued", "delayed", "running")
"""queued: may be claimed; delayed: queued from ``due_at`` on; running: a server has it."""
# PERF(queue): the queue is found by a partial index, so that the rows of finished executions, which are
# nearly all, cost no index write for it.  It holds all that a look for work needs.
sa.Index(
    "ix_executions_queue",
    executions.c.status,
    executions.c.project_id,
    executions.c.function_id,
    executions.c.due_at,
    executions.c.expires_at,
    sqlite_where=executions.c.status.in_(UNFINISHED),
    postgresql_where=executions.c.status.in_(UNFINISHED),
)

cancellations = sa.Table(
    "cancellations",
    metadata,
    sa.Column("execution_id", ID, primary_key=True, comment="one that shall end; its server looks here"),
    sa.Column("requested_at", TIME, nullable=False),
    **TEXT_OPTIONS,
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("execution_id", ID, primary_key=True, comment="one that the platform has given up"),
    sa.Column("project_id", NAME, nullable=False),
    sa.Column("died_at", TIME, nullable=False, comment="the database's clock"),
    sa.Index(None, "project_id", "died_at"),
    **TEXT_OPTIONS,
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("project_id", NAME, primary_key=True),
    sa.Column("name", NAME, primary_key=True, comment="the caller's key"),
    sa.Column("digest", sa.String(64), nullable=False, comment="SHA-256 of the body that came with it"),
    sa.Column("execution_id", ID, nullable=False),
    sa.Column("expires_at", TIME, nullable=False, comment="the database's clock"),
    sa.Index(None, "expires_at"),
    **TEXT_OPTIONS,
)

tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("shard", sa.Integer, primary_key=True, autoincrement=False, comment="the sum of all counts"),
    sa.Column("accepted", sa.BigInteger, nullable=False, comment="asynchronous executions, ever"),
    sa.Column("success", sa.BigInteger, nullable=False, comment="... that ended so, as the next two"),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("error", sa.BigInteger, nullable=False),
    sa.Column("deleted", sa.BigInteger, nullable=False, comment="... that were deleted before they ended"),
    **TEXT_OPTIONS,
)
SHARDS = 16
"""Rows of `tallies`: servers that count at once seldom wait for each other."""
