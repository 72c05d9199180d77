"""The move from SQLite to Postgres; nothing is here yet (tables: `speakfit.migrations`)."""
