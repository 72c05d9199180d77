"""What drills have proven, kept as `docs/drills.json`, and what is not proven any more. Pure.

A record holds for a policy and a runbook as they were: their hashes are kept with it. The
runbook's leaves out its generated header, which shows the times of the record itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from alerts.encode import policy_json, spec_hash
from alerts.policy import Catalog, Policy
from speakfit.errors import FaultError
from speakfit.runbook import digest

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "drills.json"
RUNBOOKS = ROOT / "runbooks"


@dataclass(frozen=True, kw_only=True)
class DrillRecord:
    """One policy's last passing drill; times are policy time."""

    policy: str
    fault: str
    detect_seconds: float
    """From the fault to the page."""
    resolve_seconds: float
    """From the fix to the resolve."""
    blocks: tuple[str, ...]
    """Blocks of the runbook that were run, in order."""
    commit: str
    date: str
    time_scale: int
    policy_hash: str
    runbook_hash: str

    @property
    def detect(self) -> timedelta:
        """From the fault to the page."""
        return timedelta(seconds=self.detect_seconds)

    @property
    def resolve(self) -> timedelta:
        """From the fix to the resolve."""
        return timedelta(seconds=self.resolve_seconds)


def policy_hash(policy: Policy, catalog: Catalog) -> str:
    """32 hex digits of what is sent to Cloud Monitoring, wherever runbooks are read."""
    return spec_hash(policy_json(policy, catalog, runbook_base_url=""))


def runbook_hash(policy: Policy, folder: Path = RUNBOOKS) -> str:
    """32 hex digits of what people wrote on the page; of nothing when there is none."""
    try:
        return digest((folder / f"{policy.runbook}.md").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return hashlib.sha256().hexdigest()[:32]


def read_records(file: Path = RECORD) -> tuple[DrillRecord, ...]:
    """What was recorded; nothing when there is no file. A FaultError when it is damaged."""
    try:
        entries: Any = json.loads(file.read_text(encoding="utf-8"))
        return tuple(_parsed(entry) for entry in entries)
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, AttributeError) as error:
        raise FaultError(
            "The record of drills is damaged.",
            where=str(file),
            todo="Take it from the last commit, or run `python -m loadtest drill --all`.",
        ) from error


def _parsed(entry: Mapping[str, Any]) -> DrillRecord:
    known = {one.name for one in fields(DrillRecord)}
    if entry.keys() != known:
        raise ValueError(f"fields {sorted(entry.keys() ^ known)}")
    date.fromisoformat(entry["date"])
    return DrillRecord(**{**entry, "blocks": tuple(entry["blocks"])})


def write_records(records: Iterable[DrillRecord], file: Path = RECORD) -> None:
    """Put new records in the place of older ones of the same policies."""
    kept = {record.policy: record for record in (*read_records(file), *records)}
    entries = [asdict(kept[policy]) for policy in sorted(kept)]
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    fresh.replace(file)


def unproven(
    catalog: Catalog, records: Sequence[DrillRecord], folder: Path = RUNBOOKS
) -> list[str]:
    """One sentence for each policy or record that does not hold; empty when all is proven."""
    known = {record.policy: record for record in records}
    found = [
        f"{policy}: recorded, but no policy of the catalog."
        for policy in sorted(known.keys() - {policy.id for policy in catalog.policies})
    ]
    for policy in catalog.policies:
        record = known.get(policy.id)
        if record is None:
            found.append(f"{policy.id}: no drill was ever passed.")
        elif record.policy_hash != policy_hash(policy, catalog):
            found.append(f"{policy.id}: the policy has changed since its drill of {record.date}.")
        elif record.runbook_hash != runbook_hash(policy, folder):
            found.append(
                f"{policy.id}: runbooks/{policy.runbook}.md has changed since its drill of "
                f"{record.date}."
            )
    return found
