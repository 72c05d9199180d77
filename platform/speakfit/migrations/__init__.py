"""Alembic's scripts; `python -m speakfit.database upgrade` runs them."""
