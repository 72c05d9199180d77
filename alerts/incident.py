"""What came: PagerDuty's incidents, and which policy of a catalog each one is of. Pure.

Google publishes no form for the events that Cloud Monitoring sends to PagerDuty, so a policy is
known by what we put into its documentation ourselves, which travels with every notification.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from alerts.doctor import COMPONENT
from alerts.encode import documentation_json
from alerts.policy import Catalog
from speakfit.pagerduty import PagerDutyIncident

_ALERT_ID = re.compile(r"Alert id: ([a-z0-9-]+)\.")
OPEN = ("triggered", "acknowledged")


@dataclass(frozen=True, kw_only=True)
class IncidentRow:
    """One incident as people ask for it."""

    id: str
    number: int
    at: datetime
    policy: str
    """Empty when it is of no policy that can be told."""
    title: str
    severity: str
    urgency: str
    status: str
    service: str
    acknowledged_by: tuple[str, ...]
    duration: timedelta
    """Until it was resolved, or until now."""
    url: str
    is_test: bool = False
    """Whether somebody only tried whether it would come."""

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to do something."""
        return self.status in OPEN

    def to_json(self) -> dict[str, Any]:
        """For machines; `duration_seconds` grows while it is open."""
        return {
            "id": self.id,
            "number": self.number,
            "at": self.at.isoformat(),
            "policy": self.policy or None,
            "test": self.is_test,
            "title": self.title,
            "severity": self.severity or None,
            "urgency": self.urgency,
            "status": self.status,
            "service": self.service,
            "acknowledged_by": list(self.acknowledged_by),
            "duration_seconds": int(self.duration.total_seconds()),
            "url": self.url,
        }


def policy_id(incident: PagerDutyIncident, catalog: Catalog) -> str:
    """The id of the policy that an incident is of; empty when nothing tells.

    Its component (our emulator's), the `Alert id` in its documentation, or the subject or name of
    a policy of the catalog as its title.
    """
    if incident.component and incident.component != COMPONENT:
        return incident.component
    told = _ALERT_ID.search(json.dumps(dict(incident.details), ensure_ascii=False))
    if told:
        return told[1]
    for policy in catalog.policies:
        subject = documentation_json(policy, runbook_base_url="").get("subject", "")
        if policy.display_name in incident.title or (subject and subject in incident.title):
            return policy.id
    return ""


def incident_row(
    incident: PagerDutyIncident,
    catalog: Catalog,
    *,
    acknowledged_by: Sequence[str],
    now: datetime,
) -> IncidentRow:
    """One row; `now` ends the duration of what is still open."""
    at = datetime.fromisoformat(incident.created_at)
    end = now if incident.status in OPEN else datetime.fromisoformat(incident.changed_at)
    return IncidentRow(
        id=incident.id,
        number=incident.number,
        at=at,
        policy=policy_id(incident, catalog),
        title=incident.title,
        severity=incident.severity,
        urgency=incident.urgency,
        status=incident.status,
        service=incident.service,
        acknowledged_by=tuple(acknowledged_by),
        duration=max(end - at, timedelta(0)),
        url=incident.url,
        is_test=incident.details.get("test") is True,
    )
