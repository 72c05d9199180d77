"""A suppression that hides nothing."""

from __future__ import annotations

from alerts.rule import Level, Rule

RULE = Rule(
    id="suppression-unused",
    level=Level.WARNING,
    finds="a suppression that suppresses nothing",
    why="It waits to hide the next mistake of its kind, which nobody has looked at.",
    remedy="Delete it.",
)
