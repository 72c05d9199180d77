"""`python -m services.migrate`: move a SQLite database to PostgreSQL."""

from services.migrate.cli import main

if __name__ == "__main__":
    main()
