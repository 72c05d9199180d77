"""A suppression whose last day has passed."""

from __future__ import annotations

from alerts.rule import Level, Rule

RULE = Rule(
    id="suppression-expired",
    level=Level.WARNING,
    finds="a suppression whose last day has passed",
    why="What was to be put right until then was not, so its findings count again.",
    remedy="Put right what it hid and delete it, or have its owner set a new day and say why.",
)
