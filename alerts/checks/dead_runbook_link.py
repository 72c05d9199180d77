"""A link to a runbook that is not there."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.candidate import Candidate
from alerts.nearest import did_you_mean
from alerts.rule import Hit, Level, Rule, Surroundings


def check(candidate: Candidate, around: Surroundings) -> Iterator[Hit]:
    """Only links below the base address, and only where the folder of the runbooks is known."""
    base = around.runbook_base_url.rstrip("/") + "/"
    if around.runbooks is None or base == "/":
        return
    for index, url in enumerate(candidate.links):
        if not url.startswith(base):
            continue
        page = url.removeprefix(base).partition("#")[0].partition("?")[0]
        if page not in around.runbooks:
            near = did_you_mean(page, around.runbooks, otherwise="", alike=0.8)
            yield Hit(
                path=("documentation", "links", index),
                text=f"There is no runbook {page}. {near}".rstrip(),
            )


RULE = Rule(
    id="dead-runbook-link",
    level=Level.ERROR,
    finds="a link to a runbook that does not exist",
    why="The one page that was to help answers 404.",
    remedy="Write the page in the folder of the runbooks, or correct the link.",
    check=check,
)
