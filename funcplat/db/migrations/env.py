"""Alembic's environment: runs on the engine that `funcplat.db.session` hands over."""

from alembic import context

from funcplat.db import models

with context.config.attributes["engine"].connect() as connection:
    connection = connection.execution_options(funcplat_write=True)
    context.configure(connection=connection, target_metadata=models.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
