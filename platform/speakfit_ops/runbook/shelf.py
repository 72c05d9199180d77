"""Where the runbooks of this checkout stand, and which policies lead to each."""

from __future__ import annotations

from pathlib import Path

from alerts.nearest import did_you_mean
from alerts.policy import Catalog, Policy
from speakfit.errors import CatalogError
from speakfit.runbook import Runbook, read_runbook

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "runbooks"


def subjects(folder: Path = FOLDER) -> list[str]:
    """The pages there are, by subject."""
    return sorted(file.stem for file in folder.glob("*.md"))


def find_runbook(subject: str, folder: Path = FOLDER) -> Runbook:
    """One page; a CatalogError names the nearest when there is none, or the line that is wrong."""
    known = subjects(folder)
    if subject not in known:
        raise CatalogError(
            f"There is no runbook {subject}.",
            where=str(folder),
            todo=did_you_mean(
                subject, known, otherwise="`python -m speakfit_ops.runbook list` names them."
            ),
        )
    return read_runbook(folder / f"{subject}.md")


def policies_of(subject: str, catalog: Catalog) -> tuple[Policy, ...]:
    """The policies whose pages link to a runbook."""
    return tuple(policy for policy in catalog.policies if policy.runbook == subject)
