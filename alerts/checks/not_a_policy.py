"""A file, or a part of one, that holds something else than alert policies."""

from __future__ import annotations

from alerts.rule import Level, Rule

RULE = Rule(
    id="not-a-policy",
    level=Level.NOTE,
    finds="a file, or a part of one, that is no alert policy",
    why="What is not recognised is not checked, and should not look as if it were.",
    remedy="Leave the file out, or write the policy in the REST form of Cloud Monitoring.",
)
