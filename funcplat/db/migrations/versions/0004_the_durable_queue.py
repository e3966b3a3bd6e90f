"""The durable queue: retries, cancellations, dead letters, tallies"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT_OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}
SHARDS = 16
UNSETTLED = sa.text("status IN ('queued', 'delayed', 'running')")
UNSETTLED_BEFORE = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    op.add_column(
        "executions",
        sa.Column(
            "due_at",
            sa.BigInteger(),
            comment="when it may be claimed or was queued; the database's clock",
        ),
    )
    op.add_column(
        "executions",
        sa.Column(
            "expires_at",
            sa.BigInteger(),
            comment="later than that it does not begin any more; the database's clock",
        ),
    )
    op.add_column(
        "executions",
        sa.Column("losses", sa.Integer(), comment="attempts that failed by the platform's doing, and count"),
    )
    op.add_column(
        "executions",
        sa.Column("failures", sa.Integer(), comment="attempts that failed by the function's doing"),
    )
    op.add_column(
        "executions",
        sa.Column(
            "retry",
            sa.String(length=255),
            comment="JSON: what is done when the function fails; null: nothing",
        ),
    )
    op.execute("UPDATE executions SET due_at = created_at WHERE status IN ('queued', 'running') AND NOT sync")
    op.drop_index(
        "ix_executions_unsettled",
        "executions",
        sqlite_where=UNSETTLED_BEFORE,
        postgresql_where=UNSETTLED_BEFORE,
    )
    op.create_index(
        "ix_executions_queue",
        "executions",
        ["status", "project_id", "function_id", "due_at", "expires_at"],
        sqlite_where=UNSETTLED,
        postgresql_where=UNSETTLED,
    )
    op.create_table(
        "cancellations",
        sa.Column(
            "execution_id",
            sa.String(length=36),
            nullable=False,
            comment="one that shall end; its server looks here",
        ),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_cancellations")),
        **TEXT_OPTIONS,
    )
    op.create_table(
        "dead_letters",
        sa.Column(
            "execution_id",
            sa.String(length=36),
            nullable=False,
            comment="one that the platform has given up",
        ),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("died_at", sa.BigInteger(), nullable=False, comment="the database's clock"),
        sa.PrimaryKeyConstraint("execution_id", name=op.f("pk_dead_letters")),
        **TEXT_OPTIONS,
    )
    op.create_index(op.f("ix_dead_letters_project_id_died_at"), "dead_letters", ["project_id", "died_at"])
    op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False, comment="the caller's key"),
        sa.Column(
            "digest",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of the body that came with it",
        ),
        sa.Column("execution_id", sa.String(length=36), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False, comment="the database's clock"),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_idempotency_keys")),
        **TEXT_OPTIONS,
    )
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"])
    tallies = op.create_table(
        "tallies",
        sa.Column(
            "shard", sa.Integer(), autoincrement=False, nullable=False, comment="the sum of all counts"
        ),
        sa.Column("accepted", sa.BigInteger(), nullable=False, comment="asynchronous executions, ever"),
        sa.Column("success", sa.BigInteger(), nullable=False, comment="... that ended so, as the next two"),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.BigInteger(), nullable=False),
        sa.Column(
            "deleted", sa.BigInteger(), nullable=False, comment="... that were deleted before they ended"
        ),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_tallies")),
        **TEXT_OPTIONS,
    )
    _count(tallies)


def _count(tallies: sa.Table) -> None:
    """The tallies begin with the executions that there are."""
    names = ("accepted", "success", "failed", "error", "deleted")
    rows = [{"shard": shard, **dict.fromkeys(names, 0)} for shard in range(SHARDS)]
    found = op.get_bind().execute(
        sa.text("SELECT status, count(*) FROM executions WHERE NOT sync GROUP BY status")
    )
    for status, number in found:
        rows[0]["accepted"] += number
        if status in names:
            rows[0][status] = number
    op.bulk_insert(tallies, rows)


def downgrade() -> None:
    op.drop_table("tallies")
    op.drop_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_dead_letters_project_id_died_at"), "dead_letters")
    op.drop_table("dead_letters")
    op.drop_table("cancellations")
    op.drop_index(
        "ix_executions_queue",
        "executions",
        sqlite_where=UNSETTLED,
        postgresql_where=UNSETTLED,
    )
    op.execute("UPDATE executions SET status = 'queued' WHERE status = 'delayed'")
    for name in ("retry", "failures", "losses", "expires_at", "due_at"):
        op.drop_column("executions", name)
    op.create_index(
        "ix_executions_unsettled",
        "executions",
        ["status", "created_at"],
        sqlite_where=UNSETTLED_BEFORE,
        postgresql_where=UNSETTLED_BEFORE,
    )
