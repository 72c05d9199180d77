"""Recordings, their chunks, the outbox and the workers' heartbeats."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _instant() -> sa.DateTime:
    return sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "recordings",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.Column("content_type", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.String(64), nullable=False),
        sa.Column("duration_seconds", sa.Float(), nullable=False),
        sa.Column("expected_chunks", sa.Integer(), nullable=False),
        sa.Column("speech", sa.JSON()),
        sa.Column("traceparent", sa.String(64)),
        sa.Column("lease_owner", sa.Uuid()),
        sa.Column("lease_expires_at", _instant()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", _instant(), nullable=False),
        sa.Column("finished_at", _instant()),
    )
    op.create_index("ix_recordings_status", "recordings", ["status"])
    op.create_table(
        "chunks",
        sa.Column(
            "recording_id",
            sa.Uuid(),
            sa.ForeignKey("recordings.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("chunk_index", sa.Integer(), primary_key=True),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.Column("end_seconds", sa.Float(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("lease_owner", sa.Uuid()),
        sa.Column("lease_expires_at", _instant()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON()),
        sa.Column("finished_at", _instant()),
    )
    op.create_index(
        "chunks_unfinished",
        "chunks",
        ["status"],
        postgresql_where=sa.text("status IN ('pending', 'leased')"),
    )
    op.create_table(
        "outbox",
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
        sa.Column("traceparent", sa.String(64)),
        sa.Column("created_at", _instant(), nullable=False),
    )
    op.create_index("ix_outbox_recording_id", "outbox", ["recording_id"])
    op.create_table(
        "worker_heartbeats",
        sa.Column("worker_id", sa.String(64), primary_key=True),
        sa.Column("started_at", _instant(), nullable=False),
        sa.Column("at", _instant(), nullable=False),
        sa.Column("processes", sa.Integer(), nullable=False),
    )
    op.create_index("ix_worker_heartbeats_at", "worker_heartbeats", ["at"])


def downgrade() -> None:
    for table in ("worker_heartbeats", "outbox", "chunks", "recordings"):
        op.drop_table(table)
