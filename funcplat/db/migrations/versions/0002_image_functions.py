"""Functions of an image: no package, no entry, and a runtime only where they name one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String(36)
NAME = sa.String(255)


def upgrade() -> None:
    with op.batch_alter_table("functions") as batch:
        batch.alter_column("runtime_id", existing_type=ID, nullable=True)
    with op.batch_alter_table("revisions") as batch:
        batch.alter_column("runtime_id", existing_type=ID, nullable=True)
        batch.alter_column("store", existing_type=NAME, nullable=True)
        batch.alter_column("digest", existing_type=sa.String(64), nullable=True)
        batch.alter_column("entry", existing_type=sa.String(80), nullable=True)
        batch.add_column(
            sa.Column("image", sa.String(400), comment="instead of a package: an image, by its digest")
        )
