"""Callers and their keys, the audio store, idempotent answers, fair turns and dead letters.

Expands only: the release before this one runs on these tables.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _instant() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def _caller(*, primary_key: bool = False) -> sa.Column[uuid.UUID]:
    return sa.Column(
        "caller_id",
        sa.Uuid(),
        sa.ForeignKey("callers.id", ondelete="CASCADE"),
        primary_key=primary_key,
        nullable=False,
    )


def _turn() -> sa.Column[int]:
    return sa.Column("turn", sa.BigInteger(), nullable=False, server_default="0")


def upgrade() -> None:
    op.create_table(
        "callers",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("subject", sa.String(255), nullable=False, unique=True),
        _turn(),
        sa.Column("created_at", _instant(), nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        _caller(),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("expires_at", _instant()),
        sa.Column("revoked_at", _instant()),
        sa.Column("last_used_at", _instant()),
    )
    op.create_index("ix_api_keys_caller_id", "api_keys", ["caller_id"])
    op.create_table(
        "stored_objects",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", _instant(), nullable=False),
    )
    op.create_index("ix_stored_objects_touched_at", "stored_objects", ["touched_at"])
    op.create_table(
        "upload_sessions",
        sa.Column("id", sa.Uuid(), primary_key=True),
        _caller(),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.String(64)),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("expires_at", _instant(), nullable=False),
        sa.Column("recording_id", sa.Uuid()),
    )
    op.create_index("ix_upload_sessions_caller_id", "upload_sessions", ["caller_id"])
    op.create_index("ix_upload_sessions_expires_at", "upload_sessions", ["expires_at"])
    op.create_table(
        "idempotency_keys",
        _caller(primary_key=True),
        sa.Column("idempotency_key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("answer", sa.JSON()),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("locked_until", _instant(), nullable=False),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    with op.batch_alter_table("recordings") as table:
        table.add_column(sa.Column("caller_id", sa.Uuid()))
        table.add_column(sa.Column("object_key", sa.String(255)))
        table.add_column(sa.Column("options", sa.JSON()))
        table.add_column(_turn())
        table.create_foreign_key("recordings_caller", "callers", ["caller_id"], ["id"])
    op.create_index("recordings_of_caller", "recordings", ["caller_id", "created_at", "id"])
    op.create_index("ix_recordings_object_key", "recordings", ["object_key"])
    op.add_column("chunks", sa.Column("model", sa.String(128)))
    op.create_index("chunks_finished", "chunks", ["finished_at"])
    op.create_table(
        "dead_letters",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column(
            "recording_id",
            sa.Uuid(),
            sa.ForeignKey("recordings.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("chunk_index", sa.Integer()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("died_at", _instant(), nullable=False),
        sa.Column("settled_at", _instant()),
    )
    op.create_index("ix_dead_letters_recording_id", "dead_letters", ["recording_id"])
    op.create_index("ix_dead_letters_settled_at", "dead_letters", ["settled_at"])


def downgrade() -> None:
    op.drop_table("dead_letters")
    op.drop_index("chunks_finished", "chunks")
    op.drop_column("chunks", "model")
    op.drop_index("ix_recordings_object_key", "recordings")
    op.drop_index("recordings_of_caller", "recordings")
    with op.batch_alter_table("recordings") as table:
        table.drop_constraint("recordings_caller", type_="foreignkey")
        for column in ("turn", "options", "object_key", "caller_id"):
            table.drop_column(column)
    for name in ("idempotency_keys", "upload_sessions", "stored_objects", "api_keys", "callers"):
        op.drop_table(name)
