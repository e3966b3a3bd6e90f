"""Jobs and webhooks"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0005"
down_revision = "0004"
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
        "jobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("function_id", sa.String(length=36), nullable=True),
        sa.Column(
            "function_alias", sa.String(length=255), nullable=True, comment="if there is one, it alone counts"
        ),
        sa.Column("function_version", sa.Integer(), nullable=True),
        sa.Column("function_input", MEDIUM_TEXT, nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False, comment="running, paused, cancelled, done"),
        sa.Column(
            "pattern", sa.String(length=255), nullable=True, comment="cron; null for a job that runs once"
        ),
        sa.Column("time_zone", sa.String(length=64), nullable=True, comment="IANA name; null: UTC"),
        sa.Column("missed_ticks", sa.String(length=16), nullable=False, comment="once, skip"),
        sa.Column("count", sa.Integer(), nullable=True, comment="runs that are left; null: no end"),
        sa.Column("first_execution_time", sa.BigInteger(), nullable=False),
        sa.Column(
            "next_execution_time",
            sa.BigInteger(),
            nullable=False,
            comment="the next tick, or the last one made",
        ),
        sa.Column("reason_code", sa.String(length=32), nullable=True),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        **TEXT_OPTIONS,
    )
    op.create_index(op.f("ix_jobs_function_id"), "jobs", ["function_id"], unique=False)
    op.create_index(
        op.f("ix_jobs_project_id_created_at_id"), "jobs", ["project_id", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_jobs_status_next_execution_time"), "jobs", ["status", "next_execution_time"], unique=False
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("webhook_id", sa.String(length=36), nullable=False),
        sa.Column(
            "message_id",
            sa.String(length=255),
            nullable=False,
            comment="the sender's, of a message that was signed",
        ),
        sa.Column(
            "sent_at", sa.BigInteger(), nullable=False, comment="seconds: the newest timestamp it came with"
        ),
        sa.Column("execution_id", sa.String(length=36), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("webhook_id", "message_id", name=op.f("pk_webhook_deliveries")),
        **TEXT_OPTIONS,
    )
    op.create_index(
        op.f("ix_webhook_deliveries_expires_at"), "webhook_deliveries", ["expires_at"], unique=False
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("function_id", sa.String(length=36), nullable=True),
        sa.Column(
            "function_alias",
            sa.String(length=255),
            nullable=True,
            comment="if there is one, function_id and function_version are null",
        ),
        sa.Column("function_version", sa.Integer(), nullable=True),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column(
            "secret",
            sa.String(length=128),
            nullable=True,
            comment="whsec_ and base64; null: anybody may call",
        ),
        sa.Column(
            "previous_secret",
            sa.String(length=128),
            nullable=True,
            comment="counts too, for a while after a rotation",
        ),
        sa.Column("previous_secret_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("rate_limit", sa.Integer(), nullable=True, comment="calls a minute; null: no limit"),
        sa.Column("rate_burst", sa.Integer(), nullable=True, comment="calls at once"),
        sa.Column(
            "rate_paid_until",
            sa.BigInteger(),
            nullable=True,
            comment="the calls let in so far are what the rate allows until then",
        ),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        **TEXT_OPTIONS,
    )
    op.create_index(op.f("ix_webhooks_function_id"), "webhooks", ["function_id"], unique=False)
    op.create_index(
        op.f("ix_webhooks_project_id_created_at_id"),
        "webhooks",
        ["project_id", "created_at", "id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")
    op.drop_table("jobs")
