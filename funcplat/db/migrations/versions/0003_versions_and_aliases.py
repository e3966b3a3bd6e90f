"""Versions and aliases of functions"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT_OPTIONS: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    # With a default, so that the release before this one can still make functions.
    op.add_column(
        "functions",
        sa.Column(
            "versions_made",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the highest version number ever given: none is given twice",
        ),
    )
    op.create_table(
        "function_versions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("function_id", sa.String(length=36), nullable=False),
        sa.Column(
            "version_number", sa.Integer(), nullable=False, comment="its code is that of its revisions"
        ),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["function_id"],
            ["functions.id"],
            name=op.f("fk_function_versions_function_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_function_versions")),
        sa.UniqueConstraint(
            "function_id", "version_number", name=op.f("uq_function_versions_function_id_version_number")
        ),
        **TEXT_OPTIONS,
    )
    op.create_table(
        "function_aliases",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column("function_id", sa.String(length=36), nullable=False),
        sa.Column("function_version", sa.Integer(), nullable=False),
        sa.Column(
            "routes",
            sa.Text(),
            nullable=True,
            comment="JSON: versions with their weights; null: function_version gets all",
        ),
        sa.Column("sole", sa.Boolean(), nullable=True, comment="true, or null where there are routes"),
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["function_id"], ["functions.id"], name=op.f("fk_function_aliases_function_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_function_aliases")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_function_aliases_project_id_name")),
        sa.UniqueConstraint(
            "function_id",
            "function_version",
            "sole",
            name=op.f("uq_function_aliases_function_id_function_version_sole"),
        ),
        **TEXT_OPTIONS,
    )


def downgrade() -> None:
    op.drop_table("function_aliases")
    op.drop_table("function_versions")
    op.drop_column("functions", "versions_made")
