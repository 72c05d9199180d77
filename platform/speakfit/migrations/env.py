"""Alembic runs this file; speakfit.database hands it an open connection."""

from __future__ import annotations

from alembic import context

from speakfit.database import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite cannot alter most columns in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
