"""The move from SQLite to Postgres; nothing is here yet. Table migrations: `speakfit.migrations`."""
