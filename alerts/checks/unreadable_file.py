"""A file that is no JSON and no YAML."""

from __future__ import annotations

from alerts.rule import Level, Rule

RULE = Rule(
    id="unreadable-file",
    level=Level.ERROR,
    finds="a file that cannot be read as JSON or YAML",
    why="Nothing in it can be checked or applied.",
    remedy="Correct the file at the position named.",
)
