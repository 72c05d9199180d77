"""The move from SQLite to PostgreSQL: plan, check, copy, verify, report (docs/moving.md)."""
