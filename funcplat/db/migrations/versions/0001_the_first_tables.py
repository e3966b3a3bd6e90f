"""The first tables"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MEDIUM_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
TEXT_OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:

    op.create_table(
        "executions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("function_id", sa.String(length=36), nullable=False),
        sa.Column("function_version", sa.Integer(), nullable=True),
        sa.Column("function_alias", sa.String(length=255), nullable=True),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("sync", sa.Boolean(), nullable=False),
        sa.Column(
            "input",
            MEDIUM_TEXT,
            nullable=True,
        ),
        sa.Column(
            "result",
            MEDIUM_TEXT,
            nullable=True,
        ),
        sa.Column("reason_code", sa.String(length=32), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("worker_id", sa.String(length=36), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=True, comment="the process that runs it"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "log",
            sa.LargeBinary()
            .with_variant(mysql.LONGBLOB(), "mariadb")
            .with_variant(mysql.LONGBLOB(), "mysql"),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_executions")),
        **TEXT_OPTIONS,
    )
    with op.batch_alter_table("executions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_executions_function_id_created_at"), ["function_id", "created_at"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_executions_project_id_created_at"), ["project_id", "created_at"], unique=False
        )
        batch_op.create_index(
            "ix_executions_unsettled",
            ["status", "created_at"],
            unique=False,
            sqlite_where=sa.text("status IN ('queued', 'running')"),
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        )

    op.create_table(
        "installation",
        sa.Column(
            "id",
            sa.String(length=36),
            nullable=False,
            comment="owner label of everything this installation makes",
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
        **TEXT_OPTIONS,
    )
    op.create_table(
        "packages",
        sa.Column("digest", sa.String(length=64), nullable=False, comment="SHA-256"),
        sa.Column("store", sa.String(length=255), nullable=False, comment="name of the storage driver"),
        sa.Column("md5", sa.String(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="storing, stored, deleting"),
        sa.Column(
            "touched_at",
            sa.BigInteger(),
            nullable=False,
            comment="when an upload last promised to refer to it",
        ),
        sa.PrimaryKeyConstraint("digest", "store", name=op.f("pk_packages")),
        **TEXT_OPTIONS,
    )
    op.create_table(
        "runtimes",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("image", sa.String(length=255), nullable=False),
        sa.Column(
            "next_image", sa.String(length=255), nullable=True, comment="while upgrading: the image to become"
        ),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason_code", sa.String(length=32), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.Column("orchestrator", sa.String(length=255), nullable=False, comment="name of the driver"),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runtimes")),
        **TEXT_OPTIONS,
    )
    with op.batch_alter_table("runtimes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runtimes_status"), ["status"], unique=False)

    op.create_table(
        "servers",
        sa.Column(
            "id", sa.String(length=36), nullable=False, comment="one process of the platform, for its life"
        ),
        sa.Column("node", sa.String(length=255), nullable=False, comment="the machine it runs on"),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "lease_expires_at", sa.BigInteger(), nullable=False, comment="later than that it counts as lost"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
        **TEXT_OPTIONS,
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("revision_id", sa.String(length=36), nullable=False),
        sa.Column(
            "slot",
            sa.Integer(),
            nullable=True,
            comment="place among the revision's workers; null once deleted",
        ),
        sa.Column("function_id", sa.String(length=36), nullable=False),
        sa.Column("function_version", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("orchestrator", sa.String(length=255), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False, comment="the process that started it"),
        sa.Column("node", sa.String(length=255), nullable=False, comment="the machine it was started from"),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("handle", sa.Text(), nullable=True, comment="JSON; null until the driver returned it"),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("reason_code", sa.String(length=32), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False, comment="when a router last gave it a call"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("revision_id", "slot", name=op.f("uq_workers_revision_id_slot")),
        **TEXT_OPTIONS,
    )
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_workers_function_id"), ["function_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_workers_state_used_at"), ["state", "used_at"], unique=False)

    op.create_table(
        "functions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("runtime_id", sa.String(length=36), nullable=False),
        sa.Column("code", MEDIUM_TEXT, nullable=False, comment="JSON, as answers show it"),
        sa.Column("entry", sa.String(length=80), nullable=True),
        sa.Column("cpu", sa.Integer(), nullable=False),
        sa.Column("memory_size", sa.BigInteger(), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("environment", MEDIUM_TEXT, nullable=False, comment="JSON object of strings"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("latest_version", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["runtime_id"], ["runtimes.id"], name=op.f("fk_functions_runtime_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_functions")),
        **TEXT_OPTIONS,
    )
    with op.batch_alter_table("functions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_functions_project_id_created_at_id"),
            ["project_id", "created_at", "id"],
            unique=False,
        )
        batch_op.create_index(batch_op.f("ix_functions_runtime_id"), ["runtime_id"], unique=False)

    op.create_table(
        "revisions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("function_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False, comment="0: the function's own code"),
        sa.Column("current", sa.Boolean(), nullable=True, comment="true, or null once superseded"),
        sa.Column("runtime_id", sa.String(length=36), nullable=False),
        sa.Column("store", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("entry", sa.String(length=80), nullable=False),
        sa.Column("cpu", sa.Integer(), nullable=False),
        sa.Column("memory_size", sa.BigInteger(), nullable=False),
        sa.Column("environment", MEDIUM_TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["function_id"], ["functions.id"], name=op.f("fk_revisions_function_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint(
            "function_id", "version", "current", name=op.f("uq_revisions_function_id_version_current")
        ),
        **TEXT_OPTIONS,
    )
    with op.batch_alter_table("revisions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_revisions_digest"), ["digest"], unique=False)


def downgrade() -> None:

    with op.batch_alter_table("revisions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_revisions_digest"))

    op.drop_table("revisions")
    with op.batch_alter_table("functions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_functions_runtime_id"))
        batch_op.drop_index(batch_op.f("ix_functions_project_id_created_at_id"))

    op.drop_table("functions")
    with op.batch_alter_table("workers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_workers_state_used_at"))
        batch_op.drop_index(batch_op.f("ix_workers_function_id"))

    op.drop_table("workers")
    op.drop_table("servers")
    with op.batch_alter_table("runtimes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_runtimes_status"))

    op.drop_table("runtimes")
    op.drop_table("packages")
    op.drop_table("installation")
    with op.batch_alter_table("executions", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_executions_unsettled",
            sqlite_where=sa.text("status IN ('queued', 'running')"),
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        )
        batch_op.drop_index(batch_op.f("ix_executions_project_id_created_at"))
        batch_op.drop_index(batch_op.f("ix_executions_function_id_created_at"))

    op.drop_table("executions")
