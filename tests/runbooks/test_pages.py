"""Runbooks and policies belong together, and every page is one that helps at night."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alerts.policies import CATALOG
from alerts.runbook import current_pages
from speakfit.runbook import BEGIN

FOLDER = Path(__file__).resolve().parents[2] / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
SUBJECTS = {policy.runbook for policy in CATALOG.policies}
SECTIONS = (
    "## What it means",
    "## What users feel",
    "## How to look",
    "## How to fix",
    "## How to know it is fixed",
    "## Escalate",
)


def test_every_header_says_what_its_policies_say() -> None:
    old = [
        subject
        for subject, (found, wanted) in current_pages(CATALOG, FOLDER).items()
        if found != wanted
    ]
    assert not old, f"run `python -m alerts runbooks --write`: {old}"


def test_every_page_about_a_subject_has_a_policy_and_every_policy_a_page() -> None:
    about = {page.stem for page in PAGES if BEGIN in page.read_text(encoding="utf-8")}
    assert about == SUBJECTS


@pytest.mark.parametrize("subject", sorted(SUBJECTS))
def test_a_page_has_every_section_with_something_in_it(subject: str) -> None:
    text = (FOLDER / f"{subject}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {subject}: ")
    at = [text.index(section) for section in SECTIONS]
    assert at == sorted(at)
    for begin, end in zip(at, [*at[1:], len(text)], strict=True):
        assert len(text[begin:end]) > 60
    assert "gcloud " in text
    assert "```sql" in text or "curl " in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_pages_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert (FOLDER / target).is_file(), target
