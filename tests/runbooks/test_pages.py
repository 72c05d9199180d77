"""Runbooks and policies belong together, and every page is one that helps at night."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerts.policies import CATALOG
from alerts.runbook import current_pages
from speakfit.errors import CatalogError
from speakfit.runbook import BEGIN, Kind, Place, human_part, parse_runbook, read_runbook
from speakfit_ops.runbook.check import findings, untyped
from speakfit_ops.runbook.shelf import FOLDER, find_runbook

PAGES = sorted(FOLDER.glob("*.md"))
SUBJECTS = {policy.runbook for policy in CATALOG.policies}
TASKS = {
    *("deploy", "rollback", "secrets", "database", "redis-loss", "spot-drought", "back-out"),
    *("pagerduty-outage", "telemetry-outage"),
}
SECTIONS = (
    *("What it means", "What users feel", "First minute", "Decide", "Fix", "Verify"),
    *("Escalate", "Background"),
)
LONGEST_LINE = 100


def test_every_header_says_what_its_policies_say() -> None:
    old = [
        subject
        for subject, (found, wanted) in current_pages(CATALOG, FOLDER).items()
        if found != wanted
    ]
    assert not old, f"run `make docs`: {old}"


def test_every_page_about_a_subject_has_a_policy_and_every_policy_a_page() -> None:
    about = {page.stem for page in PAGES if BEGIN in page.read_text(encoding="utf-8")}
    assert about == SUBJECTS
    assert {page.stem for page in PAGES} == SUBJECTS | TASKS | {"shell"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_all_that_a_page_names_exists(page: Path) -> None:
    runbook = read_runbook(page)
    assert [str(finding) for finding in findings(runbook, CATALOG)] == []
    assert page.stem == "shell" or untyped(runbook) == []


@pytest.mark.parametrize("subject", sorted(SUBJECTS | TASKS))
def test_a_page_has_every_section_and_blocks_for_both_places(subject: str) -> None:
    page = find_runbook(subject)
    text = page.text
    at = [text.index(f"\n## {section}\n") for section in SECTIONS]
    assert at == sorted(at)
    for begin, end in zip(at, [*at[1:], len(text)], strict=True):
        assert len(text[begin:end]) > 60
    for place in (Place.LOCAL, Place.PRODUCTION):
        assert page.at(place, Kind.CHECK)
        assert page.at(place, Kind.VERIFY)
    assert page.at(Place.PRODUCTION, Kind.FIX)
    # GitHub and terminals show a block without its opening line.
    assert [block.name for block in page.blocks if not block.text.startswith(block.label)] == []
    long = [line for line in human_part(text).splitlines() if len(line) > LONGEST_LINE]
    assert long == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("[a](worker-gone.md)", "leads nowhere"),
        ("[a](worker-down.md#verfy)", "no heading verfy. Did you mean verify?"),
        ("`python -m alerts plan --projct x`", "No such option: --projct"),
        ("`python -m alerts aply`", "No such command 'aply'"),
        ("`python -m speakfit_ops.stak up`", "no such module"),
        ("`make demos`", "no target demos"),
        ("`worker-gone-critical`", "no policy worker-gone-critical"),
        ("`speakfit.queue.deep`", "no metric speakfit.queue.deep"),
        ("`QUEUE_CHUNKS_MAX`", "no setting QUEUE_CHUNKS_MAX"),
        ("`terraform/moduls`", "no file terraform/moduls"),
        ("`speakfit-prod-worker-gpu-x`", ""),
        ("`speakfit-prod-postgre`", "no speakfit-prod-postgre"),
        ("```bash check a\nif true; then\n```", "syntax error"),
        ("```bash check a\necho $API_URLL\n```", "Nothing sets $API_URLL"),
        ("```bash check a\ngcloud run services update x --min-instance=3\n```", "--min-instance"),
        ("```bash check a\ngcloud run service list\n```", "is not in"),
    ],
)
def test_what_does_not_exist_is_found(wrong: str, told: str) -> None:
    page = parse_runbook("a", f"# a\n\n{wrong}\n", where="a.md")
    found = [str(finding) for finding in findings(page, CATALOG)]
    if told:
        assert any(told in one for one in found), found
    else:
        assert found == []


def test_an_unknown_runbook_names_the_nearest() -> None:
    with pytest.raises(CatalogError) as unknown:
        find_runbook("queue-deth")
    assert "Did you mean queue-depth" in unknown.value.todo
